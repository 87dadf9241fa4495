"""A folder of image files, flat or in class sub-folders."""

import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from binlatent.data import captions as caption_files
from binlatent.data.decode import SUFFIXES, decode_image
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import BrokenExample, Example, ImageSource, Opened, embedding, held_out, printable
from binlatent.data.sources.index import Index, build_index, hidden, single_file
from binlatent.data.strings import PackedStrings
from binlatent.errors import UserError
from binlatent.files import digest, user_path

# How many embeddings and captions are part of a data set's identity by their content: new ones may have the old sizes.
IDENTIFYING = 64
# If all sub-folders have these names, they are splits, not classes.
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "eval"))


class FolderSource(ImageSource):
    """Image files below a folder."""

    threads = 4

    def __init__(
        self,
        root: str,
        index: Index,
        *,
        resolution: int,
        labels: np.ndarray | None = None,
        condition_shape: tuple[int, ...] = (),
        captions: PackedStrings | bool = False,
    ):
        """Args:
        root: the folder, a plain string: quick to open files below, and small to send to workers.
        index: the n files.
        resolution: the images will be resized to it; large ones are reduced while they are decoded.
        labels: classes int32 (n,), if any.
        condition_shape: of the array in `name.npy` beside each image; empty: none is read.
        captions: the captions of every image, one per line; True reads `name.txt` beside the image.
        """
        super().__init__()
        self._root, self._index, self._resolution = root, index, resolution
        self._labels, self._condition_shape, self._captions = labels, condition_shape, captions
        self._remote = "://" in root

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"FolderSource({printable(self._root)!r}, {len(self)} images)"

    def path(self, index: int) -> str:
        """The path of image `index`."""
        return f"{self._root}/{self._index.names[index]}"

    def names(self) -> list[str]:
        """The path of every image, relative to the folder."""
        return self._index.names.to_list()

    def part(self, chosen: np.ndarray) -> "FolderSource":
        """The images where `chosen` (n,) is True."""
        return FolderSource(
            self._root,
            self._index.chosen(chosen),
            resolution=self._resolution,
            labels=None if self._labels is None else self._labels[chosen],
            condition_shape=self._condition_shape,
            captions=self._captions if isinstance(self._captions, bool) else self._captions.chosen(chosen),
        )

    def read(self, index: int) -> Example:
        path = self.path(index)
        try:
            example: Example = {"image": decode_image(self._bytes(path), self._resolution)}
        except (OSError, ValueError) as error:
            raise BrokenExample(f"{printable(path)}: {_reason(error)}") from error
        if self._labels is not None:
            example["label"] = self._labels[index]
        if self._condition_shape:
            example["condition"] = _condition(path, self._condition_shape)
        if self._captions:
            example["caption"] = self._read_captions(index)
        return example

    def _read_captions(self, index: int) -> tuple[str, ...]:
        if isinstance(self._captions, PackedStrings):
            return caption_files.split(self._captions[index])
        path = _beside(self.path(index), ".txt")
        try:
            return caption_files.parse(self._bytes(path))
        except (OSError, ValueError) as error:
            raise BrokenExample(f"{printable(path)}: {_reason(error)}") from error

    def beside(self, index: int, suffix: str) -> bytes:
        """The content of the file beside image `index` with another suffix; empty where it cannot be read."""
        try:
            return self._bytes(_beside(self.path(index), suffix))
        except OSError:
            return b""

    def _bytes(self, path: str) -> bytes:
        if self._remote:
            return epath.Path(path).read_bytes()
        with open(path, "rb") as file:
            return file.read()


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _beside(path: str, suffix: str) -> str:
    return os.path.splitext(path)[0] + suffix


def _condition(image: str, shape: tuple[int, ...] | None) -> np.ndarray:
    path = epath.Path(_beside(image, ".npy"))
    try:
        return embedding(path.read_bytes(), printable(str(path)), shape)
    except OSError as error:
        raise UserError(f"{printable(str(path))}: {_reason(error)}; write the embedding there with np.save.") from error


def open_folder(options: DataOptions, seed: int) -> Opened:
    """Opens the image files below `options.path`, at any depth.

    A file's class is its top-level sub-folder; classes are in alphabetical order. With fewer than two sub-folders there
    are no classes. If all sub-folders are named like splits (train, val, test, …), `options.split` and
    `options.validation_split` select the splits, and classes are the sub-folders of these.

    Raises:
      UserError: the folder is missing or holds no images; or images lack a class, an embedding or a caption (the message
        says how many, and names the first).
    """
    root = _existing("data.path", options.path)
    if not root.is_dir():
        raise UserError(f"data.path='{options.path}' is a file; give the folder of images.")
    tops = {child.name for child in root.iterdir() if child.is_dir() and not hidden(child.name)}
    if tops and tops <= SPLIT_NAMES:
        return _open_divided(options, seed, root, tops)
    if options.validation_split:
        raise UserError(
            f"data.validation_split='{options.validation_split}', but {root} is not divided into splits (sub-folders "
            f"named {', '.join(sorted(SPLIT_NAMES))}); leave it empty and set data.validation_fraction."
        )
    index = _listed(options, root)
    return _split_by_rule(options, seed, root, index, _class_names(options, root, index))


def open_images(path: str, options: DataOptions) -> FolderSource:
    """Opens the images of a folder, sorted by path, or a single image file; without classes and embeddings.

    Raises:
      UserError: the path does not exist, the file is not an image, or the folder holds no images.
    """
    root = _existing("images", path)
    if root.is_dir():
        index = build_index(root)
        if not len(index):
            raise UserError(f"{path}: no image files (jpg, png, webp, bmp, gif, tif, ppm) in this folder or below.")
        return FolderSource(os.fspath(root), index, resolution=options.resolution)
    if root.suffix.lower() not in SUFFIXES:
        raise UserError(f"images='{path}': expected an image file (jpg, png, webp, bmp, gif, tif, ppm) or a folder.")
    return FolderSource(os.fspath(root.parent), single_file(root), resolution=options.resolution)


def _existing(name: str, path: str) -> epath.Path:
    root = user_path(path).expanduser()
    try:
        exists = bool(path) and root.exists()
    except (OSError, ValueError) as error:  # a link to itself, too long a name, a null byte
        raise UserError(f"{name}={path!r} cannot be opened ({error}); give a folder of images.") from error
    if not exists:
        raise UserError(
            f"{name}='{path}': no such folder; give a folder of images, flat or with one sub-folder per class."
        )
    return root


def _open_divided(options: DataOptions, seed: int, root: epath.Path, tops: set[str]) -> Opened:
    for field, split in (("split", options.split), ("validation_split", options.validation_split)):
        if split not in tops and (split or field == "split"):
            raise UserError(f"data.{field}='{split}': {root} has {', '.join(sorted(tops))}; name one of them.")
    train = _listed(options, root / options.split)
    names = _class_names(options, root / options.split, train)
    if not options.validation_split:
        return _split_by_rule(options, seed, root / options.split, train, names)
    if options.validation_split == options.split:
        raise UserError(f"data.split and data.validation_split are both '{options.split}'; they must not overlap.")
    validation = _listed(options, root / options.validation_split)
    sources, identities = zip(
        _source(options, root / options.split, train, names),
        _source(options, root / options.validation_split, validation, names),
        strict=True,
    )
    return Opened(
        train=sources[0], validation=sources[1], class_names=_shown(names), identity=digest("folder", *identities)
    )


def _split_by_rule(options: DataOptions, seed: int, root: epath.Path, index: Index, names: tuple[str, ...]) -> Opened:
    mask = held_out(index.names.to_list(), options.validation_fraction, seed)
    source, identity = _source(options, root, index, names)
    return Opened(
        train=source.part(~mask),
        validation=source.part(mask),
        class_names=_shown(names),
        identity=digest("folder", identity),
    )


def _listed(options: DataOptions, root: epath.Path) -> Index:
    index = build_index(root)
    if not len(index):
        raise UserError(
            f"{root}: no image files (jpg, png, webp, bmp, gif, tif, ppm) in this folder or below; check data.path."
        )
    if options.embeddings and not index.embedded.all():
        raise UserError(_lacking(root, index, ~index.embedded, ".npy", "data.embeddings"))
    if options.captions == "txt" and (index.caption_sizes < 0).any():
        raise UserError(_lacking(root, index, index.caption_sizes < 0, ".txt", "data.captions"))
    return index


def _lacking(root: epath.Path, index: Index, mask: np.ndarray, suffix: str, key: str) -> str:
    return (
        f"{root}: {mask.sum()} of {len(index)} images have no {suffix} file beside them, the first is "
        f"{printable(index.names[int(mask.argmax())])}; add them, or set {key}=''."
    )


def _class_names(options: DataOptions, root: epath.Path, index: Index) -> tuple[str, ...]:
    if not options.labels:
        return ()
    tops = [name.partition("/")[0] for name in index.names.to_list() if "/" in name]
    names = tuple(sorted(set(tops)))
    if len(names) > 1 and len(tops) < len(index):
        raise UserError(
            f"{root}: {len(index) - len(tops)} images are outside the class folders ({_first_few(names)}), so their "
            "class is unknown; move them into one, or set data.labels=False."
        )
    return names if len(names) > 1 else ()


def _source(options: DataOptions, root: epath.Path, index: Index, names: tuple[str, ...]) -> tuple[FolderSource, str]:
    """The source of a listed folder, and the identity of its examples."""
    labels, captions, shape = None, options.captions == "txt", ()
    if names:
        number = {name: i for i, name in enumerate(names)}
        tops = [name.partition("/")[0] for name in index.names.to_list()]
        unknown = sorted(set(tops) - set(number))
        if unknown:
            raise UserError(f"{root}: classes {_first_few(unknown)} are not in the training split; remove or add them.")
        labels = np.array([number[top] for top in tops], np.int32)
    if options.embeddings:
        shape = _condition(f"{os.fspath(root)}/{index.names[0]}", None).shape
    if options.captions == "jsonl":
        captions = _metadata(options, root, index)
        caption_arrays = (captions.text, captions.ends)
    else:
        caption_arrays = (index.caption_sizes,) if captions else ()
    source = FolderSource(
        os.fspath(root),
        index,
        resolution=options.resolution,
        labels=labels,
        condition_shape=shape,
        captions=captions,
    )
    suffixes = [".npy"] * bool(options.embeddings) + [".txt"] * (options.captions == "txt")
    some = np.linspace(0, len(index) - 1, min(IDENTIFYING, len(index)), dtype=int)
    beside = [source.beside(int(i), suffix) for suffix in suffixes for i in some]
    return source, digest(index.identity(), *caption_arrays, *beside)


def _metadata(options: DataOptions, root: epath.Path, index: Index) -> PackedStrings:
    """The captions of every image, from `metadata.jsonl` in `root` or else in `data.path`."""
    top = user_path(options.path).expanduser()
    path, prefix = root / caption_files.METADATA, ""
    if not path.exists():
        path, prefix = top / caption_files.METADATA, "" if root == top else f"{root.name}/"
    if not path.exists():
        raise UserError(
            f"data.captions='jsonl', but there is no {caption_files.METADATA} in {root}; add it, or set data.captions=''."
        )
    table = caption_files.read_metadata(path)
    names = [prefix + name for name in index.names.to_list()]
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(names)} images have no line here, the first is {printable(missing[0])}; add "
            "lines, remove these images, or set data.captions=''."
        )
    return PackedStrings.of(caption_files.join(table[name]) for name in names)


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(printable, names))


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(_shown(names[:5])) + (", …" if len(names) > 5 else "")
