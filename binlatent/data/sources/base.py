"""What every source of examples gives: random access, a decided answer to unreadable examples, a rule that holds some out.

An example is a dict: `image` uint8 (h, w, c) of any size, `label` int32 () where the source has classes, `condition`
float32 (...) where embeddings were asked for, `caption` a tuple of one or more strings where captions were. Order and
content are fixed for a given source.
"""

import abc
import dataclasses
import hashlib
import io
import logging
from collections.abc import Callable

import numpy as np

from binlatent.data.options import DataOptions
from binlatent.errors import UserError

Example = dict[str, np.ndarray | np.generic | tuple[str, ...]]

# More unreadable examples than this are no accident: at least 10, and one in twenty.
BROKEN_ALLOWED = 10
BROKEN_SHARE = 0.05

log = logging.getLogger(__name__)


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
class Opened:
    """What the module of one kind of source hands to `open_splits`."""

    train: Source
    validation: Source
    class_names: tuple[str, ...]
    identity: str  # of the examples, before any split


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
        encoded = (name.encode("utf-8", "surrogateescape") for name in identities)
        hashes = (hashlib.blake2b(name, digest_size=8, key=key).digest() for name in encoded)
        score = np.frombuffer(b"".join(hashes), dtype="<u8") / 2.0**64
    mask = score < fraction
    if len(mask) > 1:
        mask[score.argmin()] = True
        mask[score.argmax()] = False
    return mask


def embedding(data: bytes | np.ndarray, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An embedding as every user of it sees it: float32 with the precision of float16, in which codes store it.

    Args:
      data: an array, or the content of a file written by `np.save`.
      where: what messages call it.
      shape: what it must be; None: any.

    Raises:
      UserError: not an array of finite numbers below 65504, or of another shape.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False) if isinstance(data, bytes) else data
        if array.dtype.kind not in "fiu":
            raise ValueError(f"its type is {array.dtype}")
        if not array.size or not array.ndim:
            raise ValueError(f"its shape is {array.shape}")
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, AttributeError) as error:
        raise UserError(f"{where}: not a readable array of numbers ({error}); write it with np.save.") from error
    if shape is not None and array.shape != shape:
        raise UserError(f"{where}: of shape {array.shape}, the first embedding of {shape}; all must have one shape.")
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            f"{where}: {int((~np.isfinite(half)).sum())} of {half.size} values are NaN, infinite or above 65504 (the "
            "largest float16, as which embeddings are stored); correct or rescale it."
        )
    return half.astype(np.float32)


def printable(name: str) -> str:
    """A file name for messages: bytes that are not UTF-8 as `\\xe9`, so that any terminal prints it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
