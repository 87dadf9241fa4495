"""Words by number: what the text tower that is trained with a prior reads.

A caption is divided into words and punctuation, without case. The commonest words of the training captions have a number
each; any other word is spelt in the bytes of its UTF-8, so that every text can be encoded. On short captions this makes
sequences a fifth as long as bytes alone, and the tower that much cheaper.
"""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from binlatent.text.encoder import Encoded

BYTES = 1  # number of the first byte; 0 is padding
WORDS = BYTES + 256  # number of the first word


def split(caption: str) -> list[str]:
    """Words and punctuation of a caption, without case."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", caption).casefold())


class WordEncoder:
    """Captions to numbers of words; see `text.encoder.TextEncoder`."""

    def __init__(self, record: Mapping[str, Any]):
        self.record = dict(record)
        self._number = {word: WORDS + i for i, word in enumerate(record["words"])}

    @classmethod
    def of(cls, captions: Iterable[str], *, length: int, words: int) -> "WordEncoder":
        """An encoder of the commonest `words` words of captions; as long as the longest of them, and at most `length`."""
        parts = [split(caption) for caption in captions]
        counts = collections.Counter(word for part in parts for word in part)
        known = sorted(counts, key=lambda word: (-counts[word], word))[:words]
        made = cls({"encoder": "own", "words": known, "vocabulary": WORDS + len(known), "length": length})
        longest = max((len(made._numbers(part)) for part in parts), default=length)
        made.record["length"] = max(1, min(length, longest))
        return made

    def _numbers(self, words: Iterable[str]) -> list[int]:
        numbers = []
        for word in words:
            known = self._number.get(word)
            numbers += [BYTES + byte for byte in word.encode()] if known is None else [known]
        return numbers

    def encode(self, captions: Sequence[str]) -> Encoded:
        tokens = np.zeros((len(captions), self.record["length"]), np.uint16)
        mask = np.zeros(tokens.shape, bool)
        for i, caption in enumerate(captions):
            numbers = self._numbers(split(caption))[: tokens.shape[1]] or [0]  # of invisible characters nothing is left
            tokens[i, : len(numbers)] = numbers
            mask[i, : len(numbers)] = True
        return Encoded(tokens=tokens, mask=mask)

    def cut(self, captions: Sequence[str]) -> list[str]:
        return [caption for caption in captions if len(self._numbers(split(caption))) > self.record["length"]]
