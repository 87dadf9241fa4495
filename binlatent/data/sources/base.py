"""What all sources have in common: random access, replacement of unreadable examples, a rule of held-out examples.

An example is a dict: `image` uint8 (h, w, c) of any size, `label` int32 () where the source has classes, `condition`
float32 (...) with embeddings, `caption` a tuple of at least one string with captions. A source's order and content are
fixed.
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

MOST_CLASSES = 1_000_000  # more are numbers of something else, and would make as many embeddings

# More unreadable examples than both of these are an error.
BROKEN_ALLOWED = 10
BROKEN_SHARE = 0.05

log = logging.getLogger(__name__)


class BrokenExample(Exception):
    """An example cannot be read; the message names it and the reason."""


class Source(abc.ABC):
    """Random access to examples; unreadable ones are replaced.

    An unreadable example is reported once and replaced by the next readable one, so one bad file does not end a long run,
    and position i is the same example in every process and epoch. `counted` tells evaluation which ones were replaced.
    Too many of them are a `UserError`.
    """

    threads = 0  # reading threads that are worth having: none for examples in memory

    def __init__(self):
        self.broken: dict[int, str] = {}

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, index: int) -> Example:
        """Reads example `index`; raises BrokenExample if that fails."""

    @abc.abstractmethod
    def __repr__(self) -> str: ...

    @abc.abstractmethod
    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        """Returns the transform for training, called with each example and a random generator of its own."""

    @abc.abstractmethod
    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        """Returns the deterministic transform for evaluation."""

    def __getitem__(self, index: int) -> Example:
        index = int(index)
        for candidate in ((index + step) % len(self) for step in range(len(self))):
            if candidate in self.broken:
                continue
            try:
                return self.read(candidate)
            except BrokenExample as error:
                self._report(candidate, str(error))
        raise UserError(f"{self!r}: none of the {len(self)} examples can be read. The first: {self.broken[index]}")

    def counted(self, index: int) -> bool:
        """Whether example `index`, already read, is itself rather than a replacement."""
        return int(index) not in self.broken

    def _report(self, index: int, message: str):
        if index in self.broken:
            return
        self.broken[index] = message
        log.warning("skipping an unreadable example (%d so far): %s", len(self.broken), message)
        if len(self.broken) > max(BROKEN_ALLOWED, BROKEN_SHARE * len(self)):
            raise UserError(
                f"{self!r}: {len(self.broken)} of {len(self)} examples could not be read: too many to skip. "
                f"The last: {message}. Repair or remove these files, or check data.path."
            )


class ImageSource(Source):
    """A source of images, which its transforms crop to a square and resize."""

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
    """An opened source, as returned to `open_splits`."""

    train: Source
    validation: Source
    class_names: tuple[str, ...]
    identity: str  # digest of the examples, before splitting


def held_out(identities: int | list[str], fraction: float, seed: int) -> np.ndarray:
    """Which examples are held out for validation: bool (n,).

    An example is held out if a hash of its identity and the seed falls below `fraction`, so it stays in its split when
    other examples are added. With at least two examples, neither split is empty.

    Args:
      identities: names, or the number of examples if they are identified by position.
      fraction: the fraction to hold out.
      seed: selects which examples.
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
    """An embedding, float32, rounded to float16 as it is stored with codes.

    Args:
      data: an array, or the content of a file written by `np.save`.
      where: its name in messages.
      shape: the expected shape; None: any.

    Raises:
      UserError: not an array of finite numbers within ±65504, or not of the expected shape.
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
        raise UserError(f"{where}: has shape {array.shape}, the first embedding {shape}; all must have the same shape.")
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            f"{where}: {int((~np.isfinite(half)).sum())} of {half.size} values are NaN, infinite or above 65504 (the "
            "largest float16; embeddings are stored as float16); correct or rescale it."
        )
    return half.astype(np.float32)


def printable(name: str) -> str:
    """A file name for messages: bytes that are not UTF-8 appear as `\\xe9`, so that any terminal can print it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
