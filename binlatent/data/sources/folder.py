"""A folder of image files, flat or in class sub-folders."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from binlatent.data.decode import decode_image
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import BrokenExample, Example, ImageSource, Opened, held_out
from binlatent.data.sources.index import Index, build_index, index_of
from binlatent.errors import UserError
from binlatent.files import digest

# Sub-folders of these names and no others are splits, not classes.
SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "eval"))


class FolderSource(ImageSource):
    """The files of `index` below `root`; labels int32 (n,) where there are classes."""

    threads = 4

    def __init__(self, root: epath.Path, index: Index, labels: np.ndarray | None = None, embeddings: bool = False):
        super().__init__()
        # A plain string, so that local files are opened without a detour and workers receive little.
        self._root, self._index, self._labels, self._embeddings = os.fspath(root), index, labels, embeddings
        self._remote = "://" in self._root
        self._condition_shape = self._condition(0).shape if embeddings and len(index) else ()

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"FolderSource({self._root!r}, {len(self)} images)"

    def path(self, index: int) -> str:
        """Where image `index` lies."""
        return f"{self._root}/{self._index.name(index)}"

    def names(self) -> list[str]:
        """Path of every image, relative to the folder."""
        return self._index.all_names()

    def read(self, index: int) -> Example:
        try:
            image = decode_image(self._bytes(self.path(index)))
        except (OSError, ValueError) as error:
            raise BrokenExample(f"{self.path(index)}: {error}") from error
        example: Example = {"image": image}
        if self._labels is not None:
            example["label"] = self._labels[index]
        if self._embeddings:
            condition = self._condition(index)
            if condition.shape != self._condition_shape:
                raise UserError(
                    f"the embedding beside {self.path(index)} is of shape {condition.shape}, the first one of "
                    f"{self._condition_shape}; all must be alike."
                )
            example["condition"] = condition
        return example

    def _bytes(self, path: str) -> bytes:
        if self._remote:
            return epath.Path(path).read_bytes()
        with open(path, "rb") as file:
            return file.read()

    def _condition(self, index: int) -> np.ndarray:
        path = epath.Path(os.path.splitext(self.path(index))[0] + ".npy")
        try:
            with path.open("rb") as file:
                return np.load(file, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: not a readable array ({error}); write it with np.save.") from error


def open_folder(options: DataOptions, seed: int) -> Opened:
    """Image files below `options.path`, at any depth.

    The first sub-folder on the way to a file is its class, in alphabetical order. Without sub-folders, or with only
    one, there are no classes. If the only sub-folders are named like splits (train, val, test, …), `options.split` and
    `options.validation_split` name which to read, and the classes are looked for below them.
    """
    root = _existing("data.path", options.path)
    tops = {child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")}
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
    """All image files below a folder, or one image file, without classes or splits: a person's pictures to be looked at."""
    plain, file = dataclasses.replace(options, embeddings=""), epath.Path(path).expanduser()
    if file.is_file():
        return _source(plain, file.parent, index_of(file), ())
    root = _existing("folder", path)
    return _source(plain, root, _listed(plain, root), ())


def _existing(name: str, path: str) -> epath.Path:
    root = epath.Path(path).expanduser()
    if not path or not root.exists():
        raise UserError(f"{name}='{path}': no such folder; give a folder of images, flat or one for each class.")
    if not root.is_dir():
        raise UserError(f"{name}='{path}' is a file; give the folder that holds the images.")
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
    return Opened(
        train=_source(options, root / options.split, train, names),
        validation=_source(options, root / options.validation_split, validation, names),
        class_names=names,
        identity=digest("folder", train.identity(), validation.identity()),
    )


def _split_by_rule(options: DataOptions, seed: int, root: epath.Path, index: Index, names: tuple[str, ...]) -> Opened:
    mask = held_out(index.all_names(), options.validation_fraction, seed)
    return Opened(
        train=_source(options, root, index.chosen(~mask), names),
        validation=_source(options, root, index.chosen(mask), names),
        class_names=names,
        identity=digest("folder", index.identity()),
    )


def _listed(options: DataOptions, root: epath.Path) -> Index:
    index = build_index(root)
    if not len(index):
        raise UserError(f"{root}: no image files (jpg, png, webp, bmp, gif, tif, ppm) in it or below; check data.path.")
    if options.embeddings and not index.embedded.all():
        lacking = np.flatnonzero(~index.embedded)
        raise UserError(
            f"{root}: {len(lacking)} of {len(index)} images have no .npy beside them, the first is "
            f"{index.name(int(lacking[0]))}; add them, or set data.embeddings=''."
        )
    return index


def _class_names(options: DataOptions, root: epath.Path, index: Index) -> tuple[str, ...]:
    if not options.labels:
        return ()
    tops = [name.partition("/")[0] for name in index.all_names() if "/" in name]
    names = tuple(sorted(set(tops)))
    if len(names) > 1 and len(tops) < len(index):
        raise UserError(
            f"{root}: {len(index) - len(tops)} images lie beside the class folders ({_some(names)}), so their "
            "class is unknown; move them into one, or set data.labels=False."
        )
    return names if len(names) > 1 else ()


def _source(options: DataOptions, root: epath.Path, index: Index, names: tuple[str, ...]) -> FolderSource:
    labels = None
    if names:
        number = {name: i for i, name in enumerate(names)}
        tops = [name.partition("/")[0] for name in index.all_names()]
        unknown = sorted(set(tops) - set(number))
        if unknown:
            raise UserError(f"{root}: classes {_some(unknown)} do not occur in the training part; remove or add them.")
        labels = np.array([number[top] for top in tops], np.int32)
    return FolderSource(root, index, labels, embeddings=bool(options.embeddings))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
