"""Embeddings and captions of codes, each distinct one stored once per shard.

A record holds row numbers into these two files beside the shard:

    ….conditions   float16, one row for each distinct embedding, without gaps
    ….captions     JSON: `captions`, the distinct captions, and `sets`, lists of indices into `captions`; each image has
                   one of the sets
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence

import numpy as np

from binlatent.data import captions as caption_files
from binlatent.errors import UserError


class ConditionWriter:
    """Writes distinct embeddings of one shape to a file as they are added."""

    def __init__(self, path: str, shape: tuple[int, ...]):
        self.path, self._shape, self._rows = path, shape, {}
        self._file = open(path, "wb")  # noqa: SIM115 (until `close`)

    def add(self, conditions: np.ndarray) -> np.ndarray:
        """Returns the row numbers int32 (b,) of embeddings (b, ...); writes new ones."""
        if np.shape(conditions)[1:] != self._shape:
            raise ValueError(
                f"condition: shape {np.shape(conditions)}, expected (b, {', '.join(map(str, self._shape))})"
            )
        return np.array([self._row(row) for row in np.asarray(conditions).astype("<f2")], np.int32)

    def _row(self, condition: np.ndarray) -> int:
        data = condition.tobytes()
        key = hashlib.blake2b(data, digest_size=16).digest()  # the embeddings themselves may take gigabytes
        if key not in self._rows:
            self._rows[key] = len(self._rows)
            self._file.write(data)
        return self._rows[key]

    def close(self) -> None:
        self._file.close()


def read_condition(path: str, row: int, shape: tuple[int, ...]) -> np.ndarray:
    """Reads row `row` of a file of embeddings, float32 of `shape`.

    Raises:
      ValueError: the file has no such row.
    """
    size = math.prod(shape)
    condition = np.fromfile(path, "<f2", count=size, offset=2 * size * row)
    if condition.size != size:
        raise ValueError(f"{path} has no row {row}")
    return condition.reshape(shape).astype(np.float32)


class CaptionWriter:
    """Collects the distinct captions, and the distinct sets of captions of an image."""

    def __init__(self, path: str):
        self.path = path
        self._captions: dict[str, int] = {}
        self._sets: dict[tuple[int, ...], int] = {}

    def add(self, captions: np.ndarray | Sequence[str]) -> np.ndarray:
        """Returns the set numbers int32 (b,) of b images; `captions` has a text per image, with one caption per line."""
        sets = (caption_files.split(text) for text in captions)
        numbers = (tuple(self._captions.setdefault(text, len(self._captions)) for text in texts) for texts in sets)
        return np.array([self._sets.setdefault(key, len(self._sets)) for key in numbers], np.int32)

    def close(self) -> None:
        """Writes the file."""
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump({"captions": list(self._captions), "sets": list(self._sets)}, file, ensure_ascii=False)


class CaptionTable:
    """The distinct captions of several shards as one list.

    Attributes:
      captions: the distinct captions.
    """

    def __init__(self, paths: Sequence[str]):
        """Reads the files that a `CaptionWriter` wrote, one per shard.

        Raises:
          UserError: a file is damaged.
        """
        numbers: dict[str, int] = {}
        self._sets: list[list[np.ndarray]] = []
        for path in paths:
            try:
                with open(path, encoding="utf-8") as file:
                    content = json.load(file)
                own = np.array([numbers.setdefault(text, len(numbers)) for text in content["captions"]], np.int32)
                self._sets.append([own[np.array(members, int)] for members in content["sets"]])
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                raise UserError(f"{os.fspath(path)} cannot be read ({error}); run `binlatent encode` again.") from error
        self.captions = list(numbers)

    def __getitem__(self, place: tuple[int, int]) -> np.ndarray:
        """The indices into `captions` of set (shard, number), int32 (m,)."""
        shard, number = place
        return self._sets[shard][number]
