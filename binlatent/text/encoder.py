"""The protocol of text encoders, and checks of captions."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from binlatent.console import warn
from binlatent.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encoder makes of n captions.

    Attributes:
      tokens: features (n, l, d) float16, or numbers of words (n, l) uint16; None where only the vector is used.
      mask: bool (n, l), which tokens count: the first ones of each, at least one; None without tokens.
      vector: pooled features (n, d) float16; None for words, which have none yet.
    """

    tokens: np.ndarray | None = None
    mask: np.ndarray | None = None
    vector: np.ndarray | None = None


@runtime_checkable
class TextEncoder(Protocol):
    """Captions to what a prior reads.

    Attributes:
      record: what checkpoints say of it, as JSON: its name, a digest of its weights, and `vocabulary`, `token_width` and
        `vector_width` of what it gives (0 or absent for none).
    """

    record: dict[str, Any]

    def encode(self, captions: Sequence[str]) -> Encoded:
        """Encodes captions; those that are longer than it takes are cut."""
        ...

    def cut(self, captions: Sequence[str]) -> list[str]:
        """Those of the captions that `encode` cuts."""
        ...


def check_record(trained: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> None:
    """Compares the encoder that a prior was trained with, and the one at hand, by their records.

    Raises:
      UserError: they differ.
    """

    # a file may be moved: its weights are its content
    def compared(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if record is None else {**record, "encoder": os.path.basename(record["encoder"])}

    if compared(trained) == compared(here):
        return
    keys = dict.fromkeys([*(trained or {}), *(here or {})])
    differing = [key for key in keys if (trained or {}).get(key) != (here or {}).get(key)]

    def name(record: Mapping[str, Any] | None) -> str:
        if record is None:
            return "none"
        return f"{record['encoder']} (weights {record.get('weights', 'unknown')}, length {record.get('length')})"

    raise UserError(
        f"the prior was trained with the text encoder {name(trained)}, and this is {name(here)}: what one says means "
        f"nothing to a prior of the other (they differ in {', '.join(differing)}). Restore the encoder, or train in "
        "another --workdir."
    )


def check_captions(captions: Any, what: str = "prompt") -> list[str]:
    """Sentences with single spaces.

    Raises:
      UserError: there are none, or one is empty or no text.
    """
    if isinstance(captions, str):
        captions = [captions]
    if not len(captions):
        raise UserError(f"no {what} is given: at least one sentence is expected")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise UserError(f"{what} {i + 1} is {caption!r}: a sentence is expected")
        if not caption.split():
            raise UserError(f"{what} {i + 1} of {len(captions)} is empty: a sentence is expected")
        if any("\ud800" <= c <= "\udfff" for c in caption):
            raise UserError(f"{what} {i + 1} is {caption!r}: text in UTF-8 is expected")
    return [" ".join(caption.split()) for caption in captions]


def cut_message(encoder: TextEncoder, captions: Sequence[str], what: str) -> str:
    """One sentence about the captions that are cut; empty where none is."""
    long = encoder.cut(captions)
    if not long:
        return ""
    return (
        f"{len(long)} of {len(captions)} {what} are longer than the {encoder.record['length']} tokens that the text "
        f"encoder takes, and are cut; the first: {long[0][:80]!r}"
    )


def warn_of_cut(encoder: TextEncoder, captions: Sequence[str], what: str) -> None:
    """Warns of captions that are cut, once for all of them."""
    if message := cut_message(encoder, captions, what):
        warn(message)
