"""Where the weights of pretrained feature networks live on a machine, and how they are read.

`binlatent convert-features` writes one `.npz` a network into the user's cache; training and evaluation read it from
there. Keys of the archive are paths into the parameter tree, joined by `/`.
"""

import os
import pathlib

import numpy as np

from binlatent.errors import UserError
from binlatent.typing import PyTree


def cache_dir() -> pathlib.Path:
    """The user's cache folder of this package: `$XDG_CACHE_HOME/binlatent`, else `~/.cache/binlatent`. It may not
    exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "binlatent"


def path_of(name: str) -> pathlib.Path:
    """The file that the converted network `name` is kept in."""
    return cache_dir() / f"{name}.npz"


def save(name: str, params: PyTree) -> pathlib.Path:
    """Writes a tree of arrays as the cached network `name`, whole or not at all; returns its path."""
    flat: dict[str, np.ndarray] = {}

    def flatten(prefix: str, node: PyTree) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                flatten(f"{prefix}/{key}" if prefix else key, child)
        else:
            flat[prefix] = np.asarray(node)

    flatten("", params)
    path = path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **flat)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load(name: str) -> PyTree:
    """The parameters of the cached network `name`, a tree of numpy arrays.

    Raises:
      UserError: where the network was never converted on this machine.
    """
    path = path_of(name)
    if not path.exists():
        home = pathlib.Path.home()  # reports repeat this message, and need not name their reader
        shown = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else path
        raise UserError(
            f"no weights of the feature network {name!r} at {shown}; run `binlatent convert-features {name}` once "
            "(it downloads them, or takes local files), or leave out what needs them"
        )
    tree: PyTree = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            *parents, leaf = key.split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = archive[key]
    return tree
