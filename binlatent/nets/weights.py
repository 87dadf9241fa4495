"""Where the weights of pretrained feature networks are stored, and how they are read.

`binlatent convert-features` writes one `.npz` per network into the user's cache directory; training and evaluation read
it from there. Keys of the archive are paths into the parameter tree, joined by `/`.
"""

import pathlib

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from binlatent.errors import UserError
from binlatent.files import atomic, cache_directory
from binlatent.typing import PyTree


def path_of(name: str) -> pathlib.Path:
    """The file of the converted network `name`."""
    return cache_directory() / f"{name}.npz"


def save(name: str, params: PyTree) -> pathlib.Path:
    """Writes a nested dict of arrays as the converted network `name`; returns the path of its file."""
    path = path_of(name)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{key: np.asarray(array) for key, array in flatten_dict(params, sep="/").items()})
    return path


def load(name: str) -> PyTree:
    """The parameters of the converted network `name`, a nested dict of numpy arrays.

    Raises:
      UserError: the network was never converted on this machine.
    """
    path = path_of(name)
    if not path.exists():
        home = pathlib.Path.home()  # reports repeat this message; the user's name does not belong in them
        shown = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else path
        raise UserError(
            f"no weights of the feature network {name!r} at {shown}; run `binlatent convert-features {name}` once "
            "(it downloads them, or reads local files), or do without it: set the loss term's weight to 0, or score with "
            "the features of `binlatent train-classifier`"
        )
    with np.load(path, allow_pickle=False) as archive:
        return unflatten_dict(dict(archive), sep="/")
