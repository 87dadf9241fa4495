"""What is found out about data once and kept in the user's cache directory: lists of files, places in tar files."""

import hashlib
import os
import zipfile

import numpy as np

from binlatent.data.sources import log


def cache_directory() -> str:
    """`binlatent` in $XDG_CACHE_HOME, or in ~/.cache."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "binlatent")


def recall(kind: str, key: str, version: int) -> dict[str, np.ndarray] | None:
    """The arrays kept under (kind, key), or None; a file that cannot be used is said aloud and left aside."""
    path = _path(kind, key)
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = dict(kept)
        return arrays if int(arrays.pop("version")) == version else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("the list of %s kept in %s cannot be used (%s); listing again", key, path, error)
        return None


def remember(kind: str, key: str, version: int, arrays: dict[str, np.ndarray]):
    """Keeps `arrays` under (kind, key), whole or not at all. Where that cannot be, a warning says so."""
    path = _path(kind, key)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, version=version, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        log.warning("the list of %s could not be kept (%s); it will be made at every start", key, error)


def _path(kind: str, key: str) -> str:
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return os.path.join(cache_directory(), f"{kind}-{name}.npz")
