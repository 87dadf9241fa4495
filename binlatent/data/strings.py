"""Many strings in two arrays: as Python objects, the names of a large data set would fill the memory of every worker."""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class PackedStrings:
    """A list of n strings.

    Attributes:
      text: the strings concatenated, uint8, UTF-8; bytes of file names that are not UTF-8 are preserved.
      ends: the end of each string in `text`, int64 (n,).
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> "PackedStrings":
        """Packs strings in the given order."""
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = self.ends[i - 1] if i else 0
        return self.text[start : self.ends[i]].tobytes().decode("utf-8", "surrogateescape")

    def to_list(self) -> list[str]:
        """All strings."""
        text = self.text.tobytes()
        return [text[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise([0, *self.ends.tolist()])]

    def chosen(self, mask: np.ndarray) -> "PackedStrings":
        """The strings where `mask` (n,) is True."""
        return PackedStrings.of(itertools.compress(self.to_list(), mask))
