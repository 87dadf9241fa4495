"""Captions as a prior reads them: each distinct one encoded once, looked up by its number."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from binlatent.console import progress
from binlatent.data.codes import CodeSource
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Example, Source
from binlatent.data.transforms import without
from binlatent.errors import UserError
from binlatent.files import atomic, cache_directory, digest
from binlatent.text.encoder import Encoded, TextEncoder, warn_of_cut

CHUNK = 1024  # captions that are encoded at a time
PARTS = "parts"  # folder of the chunks that are encoded so far


class CaptionedCodes(Source):
    """Codes with `tokens`, `token_mask` and `vector` of their captions, as the encoder gives them.

    Args:
      codes: a source of codes with captions.
      encoder: of the captions.
    """

    threads = 1

    def __init__(self, codes: CodeSource, encoder: TextEncoder):
        super().__init__()
        self._codes = codes
        self._rows = encoded_rows(encoder, codes.captions)

    def __len__(self) -> int:
        return len(self._codes)

    def __repr__(self) -> str:
        return repr(self._codes)

    def read(self, index: int) -> Example:
        return self._codes.read(index)

    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        return _Looked(self._codes.train_transform(options), self._rows)

    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        return _Looked(self._codes.eval_transform(options), self._rows)


@dataclasses.dataclass(frozen=True)
class _Looked:
    """A transform of codes, and then the caption's number replaced by what the encoder made of it."""

    transform: Callable
    rows: "WordRows | FeatureRows"

    def __call__(self, example: Example, *rng: np.random.Generator) -> Example:
        example = self.transform(example, *rng)
        return without(example, "caption") | self.rows[int(example["caption"])]


def encoded_rows(encoder: TextEncoder, captions: list[str]) -> "WordRows | FeatureRows":
    """What an encoder makes of captions, by number: in memory for words, otherwise in the user's cache directory, where
    captions that were encoded before are found again."""
    warn_of_cut(encoder, captions, "captions")
    if encoder.record["encoder"] == "own":
        made = encoder.encode(captions)
        return WordRows(made.tokens, made.mask.sum(1))
    return FeatureRows.of(encoder, captions)


@dataclasses.dataclass(frozen=True, eq=False)
class WordRows:
    """Numbers of words uint16 (n, l), and how many of each count, (n,)."""

    tokens: np.ndarray
    lengths: np.ndarray

    def __getitem__(self, number: int) -> Example:
        return {"tokens": self.tokens[number], "token_mask": np.arange(self.tokens.shape[1]) < self.lengths[number]}


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features in two files: float16, the tokens that count one after the other, and the vectors.

    Attributes:
      folder: holds `tokens.f2` and `vectors.f2`.
      ends: how many tokens come before the end of each caption, int64 (n,).
      length: l, tokens of a caption with its padding.
      token_width, vector_width: 0 where there are none.
    """

    folder: str
    ends: np.ndarray
    length: int
    token_width: int
    vector_width: int

    @classmethod
    def of(cls, encoder: TextEncoder, captions: list[str]) -> "FeatureRows":
        """Encodes captions, unless it was done before."""
        record = encoder.record
        folder = cache_directory() / "text" / digest(json.dumps(record, sort_keys=True), *captions)
        widths = record.get("token_width", 0), record.get("vector_width", 0)
        if not (folder / "ends.npy").exists():  # written last
            ends = _encode_to(folder, encoder, captions)
            with atomic(folder / "ends.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, ends)
            shutil.rmtree(folder / PARTS, ignore_errors=True)
        return cls(str(folder), np.load(folder / "ends.npy"), record["length"], *widths)

    def __getitem__(self, number: int) -> Example:
        row: Example = {}
        if self.token_width:
            start, end = (int(self.ends[number - 1]) if number else 0), int(self.ends[number])
            row["tokens"] = np.zeros((self.length, self.token_width), np.float16)
            row["tokens"][: end - start] = _read(f"{self.folder}/tokens.f2", start, end - start, self.token_width)
            row["token_mask"] = np.arange(self.length) < end - start
        if self.vector_width:
            row["vector"] = _read(f"{self.folder}/vectors.f2", number, 1, self.vector_width)[0]
        return row


def _read(path: str, start: int, count: int, width: int) -> np.ndarray:
    """Rows float16 (count, width) of a file, from row `start` on."""
    values = np.fromfile(path, "<f2", count=count * width, offset=2 * start * width)
    if values.size != count * width:
        raise UserError(
            f"{path} is shorter than when it was written; remove its folder, and captions are encoded again"
        )
    return values.reshape(count, width)


def _chunk(path: pathlib.Path, encoder: TextEncoder, captions: list[str]) -> Encoded:
    """What the encoder makes of some captions, kept in a file: an interrupted encoding goes on where it was."""
    try:
        with np.load(path) as stored:
            return Encoded(**stored)
    except FileNotFoundError:
        made = encoder.encode(captions)
    arrays = {name: array for name, array in vars(made).items() if array is not None}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return made


def _encode_to(folder: pathlib.Path, encoder: TextEncoder, captions: list[str]) -> np.ndarray:
    """Writes the two files; returns `ends`."""
    lengths = []
    with (
        atomic(folder / "tokens.f2") as tokens_path,
        atomic(folder / "vectors.f2") as vectors_path,
        open(tokens_path, "wb") as tokens,
        open(vectors_path, "wb") as vectors,
        progress(len(captions), "captions") as bar,
    ):
        for start in range(0, len(captions), CHUNK):
            chunk = captions[start : start + CHUNK]
            made = _chunk(folder / PARTS / f"{start}-{start + len(chunk)}.npz", encoder, chunk)
            if made.tokens is not None:
                tokens.write(made.tokens[made.mask].astype("<f2").tobytes())
                lengths.append(made.mask.sum(1))
            else:
                lengths.append(np.zeros(len(chunk), int))
            if made.vector is not None:
                vectors.write(made.vector.astype("<f2").tobytes())
            bar.update(len(chunk))
    return np.cumsum(np.concatenate(lengths), dtype=np.int64)
