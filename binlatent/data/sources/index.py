"""The index of an image folder: listed once, stored compactly, cached for large folders.

Listing millions of files takes minutes, so the index of at least `CACHED_FROM` files is stored in the user's cache
directory. It is valid as long as no directory below the root has changed: adding, removing or renaming a file changes its
directory's time stamp. An image that is rewritten in place is not noticed; of captions, which are the data themselves, the
sizes are read again at every start, one file at a time. Remote folders have no such time stamps and are listed at every start;
for millions of remote images, tar files or TFDS are better.
"""

import dataclasses
import logging
import os
import time

import numpy as np
from etils import epath

from binlatent.data.decode import SUFFIXES
from binlatent.data.sources.base import printable
from binlatent.data.strings import PackedStrings
from binlatent.errors import UserError
from binlatent.files import digest, load_cached, store_cached

CACHED_FROM = 10_000  # listing a smaller folder is faster than comparing time stamps
_SETTLED_NS = 2_000_000_000  # a directory changed later than this before listing might change again unnoticed
_VERSION = 3

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Image files below a root, sorted by name.

    Attributes:
      names: the n paths, relative to the root.
      sizes: bytes of each file, int64 (n,).
      embedded: whether there is an array (`name.npy`) beside the image, bool (n,).
      caption_sizes: bytes of the text file (`name.txt`) beside the image, int64 (n,); −1 without.
    """

    names: PackedStrings
    sizes: np.ndarray
    embedded: np.ndarray
    caption_sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, mask: np.ndarray) -> "Index":
        """The files where `mask` (n,) is True."""
        return Index(self.names.chosen(mask), self.sizes[mask], self.embedded[mask], self.caption_sizes[mask])

    def identity(self) -> str:
        """A digest of the files' names and sizes."""
        return digest(self.names.text, self.names.ends, self.sizes)


@dataclasses.dataclass
class _Listing:
    """The files listed so far: sizes by path relative to the root."""

    images: dict[str, int] = dataclasses.field(default_factory=dict)
    texts: dict[str, int] = dataclasses.field(default_factory=dict)  # by path without the suffix
    arrays: set[str] = dataclasses.field(default_factory=set)  # paths without the suffix

    def wants(self, path: str) -> bool:
        suffix = os.path.splitext(path)[1]
        return suffix.lower() in SUFFIXES or suffix in (".txt", ".npy")

    def add(self, path: str, size: int) -> None:
        stem, suffix = os.path.splitext(path)
        if suffix == ".npy":
            self.arrays.add(stem)
        elif suffix == ".txt":
            self.texts[stem] = size
        else:
            self.images[path] = size

    def index(self) -> Index:
        names = sorted(self.images)
        stems = [os.path.splitext(name)[0] for name in names]
        return Index(
            names=PackedStrings.of(names),
            sizes=np.array([self.images[name] for name in names], np.int64),
            embedded=np.array([stem in self.arrays for stem in stems], bool),
            caption_sizes=np.array([self.texts.get(stem, -1) for stem in stems], np.int64),
        )


def build_index(root: epath.Path) -> Index:
    """Lists the image files below `root`, or reads the list from the cache. Hidden files and folders are skipped.

    Raises:
      UserError: a folder cannot be read.
    """
    if "://" in os.fspath(root):
        return _list_remote(root).index()
    index = _load_index(root)
    if index is None:
        started = time.time_ns()
        listing, directories = _list_local(os.fspath(root))
        index = listing.index()
        if len(index) >= CACHED_FROM and max(directories.values()) < started - _SETTLED_NS:
            _store_index(root, index, directories)
    return index


def single_file(path: epath.Path) -> Index:
    """The index of a single image file, with its folder as the root."""
    listing = _Listing()
    listing.add(path.name, path.stat().length)
    return listing.index()


def _list_local(root: str) -> tuple[_Listing, dict[str, int]]:
    """Returns the files, and the time stamp of every directory; paths are relative to `root`."""
    listing, directories, todo = _Listing(), {}, [""]
    seen = set()  # device and inode of directories, since links can form loops
    while todo:
        directory = todo.pop()
        try:
            status = os.stat(os.path.join(root, directory))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            directories[directory] = status.st_mtime_ns
            with os.scandir(os.path.join(root, directory)) as entries:
                for entry in entries:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    if not hidden(entry.name) and _is_folder(listing, entry, path):
                        todo.append(path)
        except OSError as error:
            raise UserError(
                f"{printable(os.path.join(root, directory))}: this folder cannot be read ({error.strerror}); change its "
                "permissions, or move it out of data.path."
            ) from error
    return listing, directories


def _is_folder(listing: _Listing, entry: os.DirEntry, path: str) -> bool:
    """Whether an entry is a folder; files are added to the listing."""
    try:
        if entry.is_dir():
            return True
        if listing.wants(path) and entry.is_file():
            listing.add(path, entry.stat().st_size)
    except OSError as error:  # for example a link to itself
        log.warning("%s is skipped: %s", printable(entry.path), error.strerror)
    return False


def _list_remote(root: epath.Path) -> _Listing:
    listing, todo = _Listing(), [(root, "")]
    while todo:
        directory, prefix = todo.pop()
        for child in directory.iterdir():
            path = prefix + child.name
            if hidden(child.name):
                continue
            if listing.wants(path):
                listing.add(path, child.stat().length)
            elif child.is_dir():
                todo.append((child, path + "/"))
    return listing


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is not part of a data set."""
    return name.startswith(".") or name == "__MACOSX"


def _load_index(root: epath.Path) -> Index | None:
    stored = load_cached("folder", os.path.realpath(root), _VERSION)
    if stored is None:
        return None
    directories = PackedStrings(stored["directories"], stored["directory_ends"]).to_list()
    for directory, stamp in zip(directories, stored["stamps"], strict=True):
        try:
            if os.stat(os.path.join(root, directory)).st_mtime_ns != stamp:
                return None
        except OSError:
            return None
    names, caption_sizes = PackedStrings(stored["names"], stored["ends"]), stored["caption_sizes"]
    for i in np.flatnonzero(caption_sizes >= 0).tolist():
        try:
            caption_sizes[i] = os.stat(os.path.join(root, os.path.splitext(names[i])[0] + ".txt")).st_size
        except OSError:
            return None
    return Index(names, stored["sizes"], stored["embedded"], caption_sizes)


def _store_index(root: epath.Path, index: Index, directories: dict[str, int]) -> None:
    packed = PackedStrings.of(directories)
    arrays = {
        "directories": packed.text,
        "directory_ends": packed.ends,
        "stamps": np.array(list(directories.values()), np.int64),
        "names": index.names.text,
        "ends": index.names.ends,
        "sizes": index.sizes,
        "embedded": index.embedded,
        "caption_sizes": index.caption_sizes,
    }
    store_cached("folder", os.path.realpath(root), _VERSION, arrays)
