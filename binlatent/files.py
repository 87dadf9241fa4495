"""Files that are written whole or not at all, the user's cache directory, and digests of content."""

import hashlib
import logging
import os
import zipfile

import numpy as np
from etils import epath

log = logging.getLogger(__name__)


def cache_directory() -> str:
    """`binlatent` in $XDG_CACHE_HOME, or in ~/.cache."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "binlatent")


def load_cached(kind: str, key: str, version: int) -> dict[str, np.ndarray] | None:
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


def store_cached(kind: str, key: str, version: int, arrays: dict[str, np.ndarray]):
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


def write_atomic(path: epath.Path, text: str):
    """Writes a small file so that it is there whole or not at all (an object store does so anyway)."""
    if "://" in os.fspath(path):
        path.write_text(text)
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def digest(*parts: str | bytes | np.ndarray) -> str:
    """A short name for content: 16 hexadecimal digits of its SHA-256."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).data if part.size else b"")
        else:
            sha.update(part.encode() if isinstance(part, str) else part)
        sha.update(b"\0")
    return sha.hexdigest()[:16]
