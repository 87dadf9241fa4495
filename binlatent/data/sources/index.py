"""What lies in an image folder: listed once, kept compactly, remembered for large folders.

A list of millions of files takes minutes to gather and, as Python strings, gigabytes in every worker. So names are one
array of bytes, and from `REMEMBERED` files on the index is kept in the user's cache directory. It is trusted as long as
no directory below the root has changed: adding, removing or renaming a file changes its directory's time stamp. (A file
rewritten in place keeps its name, and the index holds no pixels.) Remote folders have no such time stamps and are
listed at every start; for millions of remote images tar files or TFDS are the better form.
"""

import dataclasses
import itertools
import os
import time

import numpy as np
from etils import epath

from binlatent.data.decode import SUFFIXES
from binlatent.files import digest, load_cached, store_cached

REMEMBERED = 10_000  # smaller folders are listed in less time than it takes to doubt a cache
_SETTLED_NS = 2_000_000_000  # a directory changed this shortly before it was listed may change again unseen
_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Image files below a root, sorted by name.

    Attributes:
      names: all paths relative to the root, one after the other, UTF-8.
      ends: where each path ends in `names`, int64 (n,).
      sizes: bytes of each file, int64 (n,).
      embedded: whether an array lies beside the image (`name.npy`), bool (n,).
    """

    names: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    embedded: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, i: int) -> str:
        """Path of file i, relative to the root."""
        start = self.ends[i - 1] if i else 0
        return self.names[start : self.ends[i]].tobytes().decode("utf-8", "surrogateescape")

    def all_names(self) -> list[str]:
        """Every path, in order."""
        text = self.names.tobytes()
        starts = [0, *self.ends.tolist()]
        return [text[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(starts)]

    def chosen(self, mask: np.ndarray) -> "Index":
        """The files where `mask` (n,) is True."""
        names = [name for name, keep in zip(self.all_names(), mask, strict=True) if keep]
        return _index(names, self.sizes[mask], self.embedded[mask])

    def identity(self) -> str:
        """A short name for the set of files: of their names and sizes."""
        return digest(self.names, self.ends, self.sizes)


def build_index(root: epath.Path) -> Index:
    """Lists the image files below `root`, or recalls the list. Hidden files and folders are left out."""
    if "://" in os.fspath(root):
        return _from_rows(*_list_remote(root))
    index = _load_index(root)
    if index is None:
        started = time.time_ns()
        rows, arrays, directories = _list_local(os.fspath(root))
        index = _from_rows(rows, arrays)
        if len(index) >= REMEMBERED and max(directories.values()) < started - _SETTLED_NS:
            _store_index(root, index, directories)
    return index


def index_of(file: epath.Path) -> Index:
    """The index of one file, below its parent, whatever its ending."""
    return _from_rows([(file.name, file.stat().length)], set())


def _index(names: list[str], sizes: np.ndarray, embedded: np.ndarray) -> Index:
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    return Index(
        names=np.frombuffer(b"".join(encoded), np.uint8),
        ends=np.cumsum([len(name) for name in encoded], dtype=np.int64),
        sizes=np.asarray(sizes, np.int64),
        embedded=np.asarray(embedded, bool),
    )


def _from_rows(rows: list[tuple[str, int]], arrays: set[str]) -> Index:
    rows.sort()
    embedded = [os.path.splitext(name)[0] in arrays for name, _ in rows]
    return _index([name for name, _ in rows], np.array([size for _, size in rows], np.int64), np.array(embedded, bool))


def _list_local(root: str) -> tuple[list[tuple[str, int]], set[str], dict[str, int]]:
    """One walk: (path, size) of images, stems of arrays, time stamp of every directory; paths relative to `root`."""
    rows, arrays, directories, todo = [], set(), {}, [""]
    seen = set()  # real directories, for a link may lead back up
    while todo:
        directory = todo.pop()
        status = os.stat(os.path.join(root, directory))
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        directories[directory] = status.st_mtime_ns
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                path = f"{directory}/{entry.name}" if directory else entry.name
                if entry.is_dir():
                    todo.append(path)
                    continue
                stem, suffix = os.path.splitext(path)
                if suffix.lower() in SUFFIXES and entry.is_file():
                    rows.append((path, entry.stat().st_size))
                elif suffix == ".npy":
                    arrays.add(stem)
    return rows, arrays, directories


def _list_remote(root: epath.Path) -> tuple[list[tuple[str, int]], set[str]]:
    rows, arrays, todo = [], set(), [(root, "")]
    while todo:
        directory, prefix = todo.pop()
        for child in directory.iterdir():
            if _hidden(child.name):
                continue
            path = prefix + child.name
            stem, suffix = os.path.splitext(path)
            if suffix.lower() in SUFFIXES:
                rows.append((path, child.stat().length))
            elif suffix == ".npy":
                arrays.add(stem)
            elif child.is_dir():
                todo.append((child, path + "/"))
    return rows, arrays


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _load_index(root: epath.Path) -> Index | None:
    kept = load_cached("folder", os.path.realpath(root), _VERSION)
    if kept is None:
        return None
    directories = bytes(kept["directories"]).decode("utf-8", "surrogateescape").split("\0")
    for directory, stamp in zip(directories, kept["stamps"], strict=True):
        try:
            if os.stat(os.path.join(root, directory)).st_mtime_ns != stamp:
                return None
        except FileNotFoundError:
            return None
    return Index(**{field.name: kept[field.name] for field in dataclasses.fields(Index)})


def _store_index(root: epath.Path, index: Index, directories: dict[str, int]):
    stamps = {
        "directories": np.frombuffer("\0".join(directories).encode("utf-8", "surrogateescape"), np.uint8),
        "stamps": np.array(list(directories.values()), np.int64),
    }
    store_cached("folder", os.path.realpath(root), _VERSION, {**stamps, **vars(index)})
