"""The user's cache directory, atomic writes, users' Python files, and digests."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import pathlib
import secrets
import sys
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from etils import epath

from binlatent.errors import UserError

T = TypeVar("T")
# what reading a truncated or damaged npz file raises
DAMAGED_NPZ = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
STORES = {"gs": "gcs", "s3": "s3"}  # prefix → file system, and the extra that has it
log = logging.getLogger(__name__)


def cache_directory() -> pathlib.Path:
    """`$XDG_CACHE_HOME/binlatent`, or `~/.cache/binlatent`. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "binlatent"


def user_path(path: epath.PathLike) -> epath.Path:
    """A path that a user named: of a local file, or of an object store (`gs://`, `s3://`).

    Raises:
      UserError: it has another prefix, such as `https://`, or characters that no file name has, or the library for this
        object store is not installed.
    """
    try:
        os.fsencode(path)
        prefix, found, _ = os.fspath(path).partition("://")
        if found and prefix in STORES and importlib.util.find_spec("tensorflow") is None:  # which has its own
            import fsspec

            fsspec.get_filesystem_class(STORES[prefix])
        return epath.Path(path)
    except ImportError as error:
        raise UserError(f"{os.fspath(path)}: {error}: pip install 'binlatent[{STORES[prefix]}]'") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{os.fspath(path)!r} is no path: {error.reason} at character {error.start + 1}") from error
    except KeyError as error:
        raise UserError(f"{os.fspath(path)}: paths are local, or begin with gs:// or s3://") from error


@contextlib.contextmanager
def atomic(path: epath.PathLike, *, sync: bool = True) -> Iterator[str]:
    """Yields the name of a temporary local file, which becomes `path` when the block ends.

    Readers of `path` see the old or the new content, never a part, even after a power failure. If the block raises, the
    temporary file is removed and `path` is unchanged. Parent directories are created. For a remote `path` (`gs://`,
    `s3://`), the temporary file is in the cache directory and is copied.

    Args:
      sync: wait until the content is on the disk; without, a power failure may leave an empty file.

    Raises:
      OSError: the file cannot be written.
    """
    remote = "://" in os.fspath(path)
    path = path if remote else os.path.realpath(path)  # of a link, the file that it names
    name = digest(os.fspath(path))
    folder = cache_directory() / "uploads" if remote else pathlib.Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    # hosts that share a folder may have equal process numbers
    temporary = folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield str(temporary)
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        if remote:
            epath.Path(temporary).copy(path, overwrite=True)
        else:
            os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise  # of something else in the block
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: epath.PathLike, content: str | bytes, *, sync: bool = True) -> None:
    """Writes a file atomically; see `atomic`."""
    content = content.encode() if isinstance(content, str) else content
    if "://" in os.fspath(path):
        epath.Path(path).write_bytes(content)  # object stores replace objects atomically
        return
    with atomic(path, sync=sync) as temporary, open(temporary, "wb") as file:
        file.write(content)


def load_cached(kind: str, key: str, version: int) -> dict[str, np.ndarray] | None:
    """The arrays cached under (kind, key), or None; an unreadable file is ignored with a warning."""
    path = _cache_path(kind, key)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return arrays if int(arrays.pop("version")) == version else None
    except FileNotFoundError:
        return None
    except DAMAGED_NPZ as error:
        log.warning("the cache of %s in %s cannot be read (%s); it is computed again", key, path, error)
        return None


def store_cached(kind: str, key: str, version: int, arrays: dict[str, np.ndarray]) -> None:
    """Caches `arrays` under (kind, key); a failure is only a warning."""
    try:
        with atomic(_cache_path(kind, key)) as temporary, open(temporary, "wb") as file:
            np.savez(file, version=version, **arrays)
    except OSError as error:
        log.warning("%s could not be cached (%s); it will be computed at every start", key, error)


def _cache_path(kind: str, key: str) -> pathlib.Path:
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_directory() / f"{kind}-{name}.npz"


def run_python(path: pathlib.Path, what: str, use: Callable[[types.ModuleType], T]) -> T:
    """What `use` makes of a person's Python file, once it has run.

    Args:
      what: the file, for the message.

    Raises:
      UserError: anything goes wrong in the file, or in `use` of it.
    """
    spec = importlib.util.spec_from_file_location(f"binlatent_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        return use(module)
    except (Exception, SystemExit) as error:  # it is somebody's program: anything may happen in it
        raise UserError(f"{what}: {type(error).__name__}: {error}") from error


def digest(*parts: str | bytes | np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of content.

    For arrays, type and shape count as well as values; ("ab", "c") and ("a", "bc") differ.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode())
            part = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data if part.size else b""
        sha.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part)
        sha.update(b"\0")
    return sha.hexdigest()[:16]
