"""Images in tar files, in WebDataset's layout: files whose names agree up to the first dot are one example.

`0001.jpg` with `0001.cls` (the class number), `0001.npy` (an embedding) and `0001.txt` (captions, one per line) beside
it, in any number of uncompressed tar files. The offset of every member is read once, from the headers alone, and stored in
the user's cache directory. An image is then one read at a known offset, so shuffling is over all examples and a position
is the same example in every run.
"""

import dataclasses
import os
import tarfile

import numpy as np
from etils import epath

from binlatent.data import captions as caption_files
from binlatent.data.decode import SUFFIXES, decode_image
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import (
    MOST_CLASSES,
    BrokenExample,
    Example,
    ImageSource,
    Opened,
    embedding,
    held_out,
    printable,
)
from binlatent.errors import UserError
from binlatent.files import digest, load_cached, store_cached, user_path

_VERSION = 2
_PARTS = {"npy": "array", "txt": "text"}  # by suffix: what an example may have besides image and class


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """Where the examples are stored: arrays (n,).

    Attributes:
      tar: index of the tar file.
      key: name of the example, bytes.
      offset: start of the image in the tar file.
      size: of the image, in bytes.
      label: class; −1 without.
      array_offset: start of the embedding.
      array_size: of the embedding, in bytes; 0 without.
      text_offset: start of the captions.
      text_size: of the captions, in bytes; −1 without.
    """

    tar: np.ndarray
    key: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    array_offset: np.ndarray
    array_size: np.ndarray
    text_offset: np.ndarray
    text_size: np.ndarray

    def __len__(self) -> int:
        return len(self.tar)

    def chosen(self, mask: np.ndarray) -> "Members":
        """The examples where `mask` (n,) is True."""
        return Members(*(getattr(self, field.name)[mask] for field in dataclasses.fields(self)))


class TarSource(ImageSource):
    """The examples at `members` in the tar files `paths`."""

    threads = 4

    def __init__(
        self,
        root: str,
        paths: list[str],
        members: Members,
        *,
        resolution: int,
        labels: bool,
        embeddings: bool,
        captions: bool,
    ):
        """Args:
        root: the folder, for messages.
        paths: the tar files.
        members: the n examples.
        resolution: the images will be resized to it; large ones are reduced while they are decoded.
        labels, embeddings, captions: whether they are read.
        """
        super().__init__()
        self._root, self._paths, self._members, self._resolution = root, paths, members, resolution
        self._labels, self._captions = labels, captions
        self._condition_shape = self._condition(0, None).shape if embeddings and len(members) else ()

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"TarSource({self._root!r}, {len(self)} images)"

    def read(self, index: int) -> Example:
        members = self._members
        try:
            data = self._member(index, "offset", "size")
            example: Example = {"image": decode_image(data, self._resolution)}
            if self._captions:
                example["caption"] = caption_files.parse(self._member(index, "text_offset", "text_size"))
        except (OSError, ValueError) as error:
            raise BrokenExample(f"{self._where(index)}: {error}") from error
        if self._labels:
            example["label"] = members.label[index]
        if self._condition_shape:
            example["condition"] = self._condition(index, self._condition_shape)
        return example

    def _where(self, index: int) -> str:
        key = self._members.key[index].decode("utf-8", "backslashreplace")
        return f"{printable(self._paths[self._members.tar[index]])}, {key}"

    def _member(self, index: int, offset: str, size: str) -> bytes:
        members = self._members
        return _bytes(self._paths[members.tar[index]], getattr(members, offset)[index], getattr(members, size)[index])

    def _condition(self, index: int, shape: tuple[int, ...] | None) -> np.ndarray:
        data = self._member(index, "array_offset", "array_size")
        return embedding(data, f"{self._where(index)}.npy", shape)


def _bytes(path: str, offset: np.integer, size: np.integer) -> bytes:
    with epath.Path(path).open("rb") if "://" in path else open(path, "rb") as file:
        file.seek(int(offset))
        return file.read(int(size))


def open_shards(options: DataOptions, seed: int) -> Opened:
    """Opens the tar files in folder `options.path`.

    With `validation_split`, files whose names begin with it are for validation, and files whose names begin with `split`
    for training (`train-0000.tar`, `val-0000.tar`). Otherwise a fraction of the examples is held out by hash: of the files
    whose names begin with `split`, or of all where none does and `split` is the default.
    """
    root = user_path(options.path).expanduser()
    if not options.path or not root.is_dir():
        raise UserError(f"data.path='{options.path}': no such folder; give a folder of tar files.")
    paths = sorted(path for path in root.iterdir() if path.suffix == ".tar" and not path.name.startswith("."))
    if not paths:
        raise UserError(f"{root}: no .tar files here (compressed ones have no random access: unpack .tar.gz to .tar).")
    if not options.validation_split:  # names such as 0000.tar are of no split: then all files are read
        chosen = [path for path in paths if path.name.startswith(options.split)]
        if not chosen and options.split != DataOptions.split:
            raise UserError(f"data.split='{options.split}': no .tar file in {root} begins with it.")
        paths = chosen or paths
    members = _members(root, paths)
    _check(options, root, members)
    if options.validation_split:
        train, validation = (
            np.array([path.name.startswith(prefix) for path in paths])[members.tar]
            for prefix in (options.split, options.validation_split)
        )
        if (train & validation).any():
            raise UserError(
                f"data.split='{options.split}' and data.validation_split='{options.validation_split}' name the same tar files."
            )
    else:
        names = [f"{paths[tar].name}/{key!r}" for tar, key in zip(members.tar, members.key, strict=True)]
        validation = held_out(names, options.validation_fraction, seed)
        train = ~validation
    sizes = [members.text_size] * bool(options.captions) + [members.array_size] * bool(options.embeddings)
    labelled = options.labels and bool((members.label >= 0).any())
    labels = members.label[train] if options.validation_split else members.label
    classes = int(labels.max(initial=-1)) + 1 if labelled else 0
    if labelled and train.any() and (beyond := members.label[validation] >= classes).any():
        raise UserError(
            f"{root}: {beyond.sum()} validation images have a class beyond {classes - 1}, the largest of the training images; "
            "correct their .cls files, or set data.labels=False."
        )
    sources = [
        TarSource(
            os.fspath(root),
            list(map(os.fspath, paths)),
            members.chosen(mask),
            resolution=options.resolution,
            labels=labelled,
            embeddings=bool(options.embeddings),
            captions=bool(options.captions),
        )
        for mask in (train, validation)
    ]
    return Opened(
        train=sources[0],
        validation=sources[1],
        class_names=tuple(map(str, range(classes))),
        identity=digest("shards", members.key, members.size, members.label, *sizes),
    )


def _check(options: DataOptions, root: epath.Path, members: Members):
    if not len(members):
        raise UserError(f"{root}: no images (jpg, png, webp, bmp, gif, tif, ppm) in its tar files.")
    missing = members.label < 0
    if options.labels and missing.any() and not missing.all():
        raise UserError(
            f"{root}: {missing.sum()} of {len(members)} images have no .cls file, the first is "
            f"{members.key[missing][0].decode(errors='replace')}; add them, or set data.labels=False."
        )
    if options.embeddings and not members.array_size.all():
        raise UserError(
            f"{root}: {(members.array_size == 0).sum()} of {len(members)} images have no .npy file; add them, or set "
            "data.embeddings=''."
        )
    uncaptioned = members.text_size < 0
    if options.captions and uncaptioned.any():
        raise UserError(
            f"{root}: {uncaptioned.sum()} of {len(members)} images have no .txt file, the first is "
            f"{members.key[uncaptioned][0].decode(errors='replace')}; add them, or set data.captions=''."
        )


def _members(root: epath.Path, paths: list[epath.Path]) -> Members:
    """Reads the headers of all tar files, or the cache if sizes and time stamps are unchanged."""
    states = [path.stat() for path in paths]
    state = digest(repr([(path.name, stat.length, stat.mtime) for path, stat in zip(paths, states, strict=True)]))
    key = os.fspath(root)
    stored = load_cached("tar", key, _VERSION)
    if stored is not None and stored.pop("state").item() == state:
        return Members(**stored)
    rows = [row for number, path in enumerate(paths) for row in _headers(number, path)]
    columns = zip(*rows, strict=True) if rows else [()] * 9
    kinds = (np.int32, np.bytes_, np.int64, np.int64, np.int32, *[np.int64] * 4)
    members = Members(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))
    store_cached("tar", key, _VERSION, {"state": np.array(state), **vars(members)})
    return members


def _class_number(name: str, data: bytes) -> int:
    try:
        number = int(data)
    except ValueError as error:
        raise ValueError(f"{name} holds {data[:20]!r}; a class number is expected") from error
    if not 0 <= number < MOST_CLASSES:
        raise ValueError(f"{name} holds {number}; classes are numbered from 0 to at most {MOST_CLASSES - 1:,}")
    return number


def _headers(number: int, path: epath.Path) -> list[tuple]:
    """The examples of one tar file, in order, as rows of `Members`."""
    examples: dict[str, dict[str, tuple[int, int]]] = {}
    labels: dict[str, int] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if suffix.lower() == "cls":
                    labels[key] = _class_number(member.name, archive.extractfile(member).read())
                elif suffix.lower() in _PARTS or f".{suffix.lower()}" in SUFFIXES:
                    part = _PARTS.get(suffix.lower(), "image")
                    examples.setdefault(key, {})[part] = (member.offset_data, member.size)
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile does not check
                raise tarfile.ReadError("truncated: the end-of-archive marker is missing")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a complete, uncompressed tar file ({error}); repair or remove it.") from error
    return [
        (
            number,
            key.encode("utf-8", "surrogateescape"),
            *parts["image"],
            labels.get(key, -1),
            *parts.get("array", (0, 0)),
            *parts.get("text", (0, -1)),
        )
        for key, parts in examples.items()
        if "image" in parts
    ]
