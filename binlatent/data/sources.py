"""Where examples come from: the options of the `data` section, the access that every source gives, the two splits.

An example is a dict: `image` uint8 (h, w, c) of any size, `label` int32 () where the source has classes,
`condition` float32 (...) where embeddings were asked for. Order and content are fixed for a given source.
"""

import abc
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from binlatent.errors import UserError

Example = dict[str, np.ndarray | np.generic]

# More unreadable examples than this are no accident: at least 10, and one in twenty.
BROKEN_ALLOWED = 10
BROKEN_SHARE = 0.05

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The `data` section of a config.

    Attributes:
      source: `digits` (scikit-learn's handwritten digits), `folder` (image files), `npz` (arrays), `tfds`
        (TensorFlow Datasets prepared as array_record), `shards` (tar files of images).
      path: the folder, the npz file, the folder of tar files, or the TFDS data_dir; may be remote (gs://, s3://)
        where etils.epath can read it.
      name: name of the TFDS set.
      split: what to train on: a TFDS split, or the sub-folder of an image folder that is divided into splits.
      validation_split: the same for validation; empty: a part of `split`, by rule (see `held_out`).
      validation_fraction: the part that the rule holds out.
      resolution: side of the square images, pixels.
      channels: 1 (grey) or 3 (RGB); images are converted.
      crop: where the square is cut in training from an image that is not square; evaluation cuts at the centre.
      flip: mirror half of the training images, each time anew.
      labels: False ignores the classes even where there are some.
      embeddings: `npy` gives each image the array stored beside it as `condition`: `name.npy` beside `name.jpg`,
        in a folder or a tar file, or the array `condition` of an npz file. Empty: none.
      workers: processes that read and decode; 0 reads in threads of this one.
    """

    source: str = "digits"
    path: str = ""
    name: str = ""
    split: str = "train"
    validation_split: str = ""
    validation_fraction: float = 0.1
    resolution: int
    channels: int = 3
    crop: str = "random"
    flip: bool = False
    labels: bool = True
    embeddings: str = ""
    workers: int = 0

    def __post_init__(self):
        _choice("source", self.source, ("digits", "folder", "npz", "tfds", "shards"))
        _choice("crop", self.crop, ("random", "center"))
        _choice("channels", self.channels, (1, 3))
        _choice("embeddings", self.embeddings, ("", "npy"))
        if self.resolution < 1:
            raise UserError(f"data.resolution={self.resolution}: give the side of the images in pixels, at least 1.")
        if self.workers < 0:
            raise UserError(f"data.workers={self.workers}: give a number of processes, 0 for none.")
        if not self.validation_split and not 0 < self.validation_fraction < 1:
            raise UserError(
                f"data.validation_fraction={self.validation_fraction}: give a part between 0 and 1 (0.1 holds out a "
                "tenth), or name data.validation_split."
            )
        if self.embeddings and self.source in ("digits", "tfds"):
            raise UserError(f"data.embeddings='{self.embeddings}': source '{self.source}' has no embeddings; use ''.")


def _choice(name: str, value: Any, known: tuple):
    if value not in known:
        raise UserError(f"data.{name}={value!r}: expected one of {', '.join(map(repr, known))}.")


class BrokenExample(Exception):
    """One example cannot be read; the message names it and the reason."""


class Source(abc.ABC):
    """Random access to examples, with a decided answer to unreadable ones.

    An example that cannot be read is reported once and replaced by the next readable one of the same source, so a
    long run does not end for one bad file and position i still means the same example in every process and every
    epoch. `counted` tells evaluation which ones were replaced. Too many of them is a `UserError`.
    """

    threads = 0  # reading threads that pay off: none where examples lie in memory

    def __init__(self):
        self.broken: dict[int, str] = {}

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, index: int) -> Example:
        """Example `index`; raises BrokenExample where it cannot be read."""

    @abc.abstractmethod
    def __repr__(self) -> str: ...

    @abc.abstractmethod
    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        """What training does to an example, with its own random generator."""

    @abc.abstractmethod
    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        """What evaluation does to an example; nothing random."""

    def __getitem__(self, index: int) -> Example:
        index = int(index)
        for candidate in ((index + step) % len(self) for step in range(len(self))):
            if candidate in self.broken:
                continue
            try:
                return self.read(candidate)
            except BrokenExample as error:
                self._report(candidate, str(error))
        raise UserError(f"{self!r}: not one of {len(self)} examples can be read. The first: {self.broken[index]}")

    def counted(self, index: int) -> bool:
        """Whether `index`, already read, was itself and not a replacement."""
        return int(index) not in self.broken

    def _report(self, index: int, message: str):
        if index in self.broken:
            return
        self.broken[index] = message
        log.warning("skipping an unreadable example (%d so far): %s", len(self.broken), message)
        if len(self.broken) > max(BROKEN_ALLOWED, BROKEN_SHARE * len(self)):
            raise UserError(
                f"{self!r}: {len(self.broken)} of {len(self)} examples could not be read, which is more than chance. "
                f"The last: {message}. Repair or remove these files, or check that data.path is the right place."
            )


class ImageSource(Source):
    """A source whose examples hold images, cut to a square and resized on the way."""

    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        from binlatent.data.transforms import TrainImage

        return TrainImage(
            resolution=options.resolution, channels=options.channels, crop=options.crop, flip=options.flip
        )

    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        from binlatent.data.transforms import EvalImage

        return EvalImage(resolution=options.resolution, channels=options.channels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """The two parts of a data set.

    Attributes:
      train: what training sees.
      validation: held out; never in `train`.
      num_classes: 0 where there are no classes or `labels` is False.
      class_names: names in the order of the labels; empty without classes.
      condition_shape: shape of `condition` of one example; empty without embeddings.
      fingerprint: changes with the examples, the split and what is read of an image; not with augmentation.
    """

    train: Source
    validation: Source
    num_classes: int
    class_names: tuple[str, ...]
    condition_shape: tuple[int, ...]
    fingerprint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """What the module of one kind of source hands to `open_splits`."""

    train: Source
    validation: Source
    class_names: tuple[str, ...]
    identity: str  # of the examples, before any split


def open_splits(options: DataOptions, *, seed: int) -> Splits:
    """Opens the training and validation parts of the data set that `options` describe.

    Raises:
      UserError: it is missing, empty, too small to be split, or not what its kind should be.
    """
    if options.source == "folder":
        from binlatent.data.folder import open_folder as opener
    elif options.source == "tfds":
        from binlatent.data.tfds import open_tfds as opener
    elif options.source == "shards":
        from binlatent.data.shards import open_shards as opener
    elif options.source == "npz":
        from binlatent.data.arrays import open_npz as opener
    else:
        from binlatent.data.arrays import open_digits as opener
    opened = opener(options, seed)
    for name, part in (("training", opened.train), ("validation", opened.validation)):
        if len(part) == 0:
            raise UserError(f"{part!r}: the {name} part is empty; at least two examples are needed, one for each part.")
    names = opened.class_names if options.labels else ()
    condition = opened.train[0].get("condition") if options.embeddings else None
    read = {
        name: getattr(options, name)
        for name in ("split", "validation_split", "validation_fraction", "resolution", "channels", "labels", "embeddings")
    }
    return Splits(
        train=opened.train,
        validation=opened.validation,
        num_classes=len(names),
        class_names=names,
        condition_shape=() if condition is None else condition.shape,
        fingerprint=digest(json.dumps([opened.identity, seed, names, read])),
    )


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


def held_out(identities: int | list[str], fraction: float, seed: int) -> np.ndarray:
    """Which examples the rule holds out for validation: bool (n,).

    An example is held out where a hash of its identity and the seed falls below `fraction`, so it stays on its side
    when others are added. Of two or more examples at least one falls on each side.

    Args:
      identities: names, or the number of examples known only by their position.
      fraction: the part to hold out.
      seed: another seed draws another part.
    """
    if isinstance(identities, int):
        score = np.random.default_rng([seed, 0x5B117]).random(identities)  # the i-th draw does not depend on n
    else:
        key = hashlib.sha256(f"split {seed}".encode()).digest()[:16]
        hashes = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in identities)
        score = np.frombuffer(b"".join(hashes), dtype="<u8") / 2.0**64
    mask = score < fraction
    if len(mask) > 1:
        mask[score.argmin()] = True
        mask[score.argmax()] = False
    return mask
