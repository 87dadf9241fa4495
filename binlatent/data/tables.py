"""What codes are conditioned on, stored once for all records of a shard that have it.

A record of a shard holds the number of a row in these two files beside it:

    ….conditions   float16, one row for each distinct embedding, without gaps
    ….captions     JSON: `captions`, the distinct captions, and `sets`, lists of numbers of captions; images of a set have
                   the same captions
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
    """Writes distinct embeddings of one shape to a file as they come."""

    def __init__(self, path: str, shape: tuple[int, ...]):
        self.path, self._shape, self._rows = path, shape, {}
        self._file = open(path, "wb")  # noqa: SIM115 (until `close`)

    def add(self, conditions: np.ndarray) -> np.ndarray:
        """The row numbers int32 (b,) of embeddings (b, ...); new ones are written."""
        if np.shape(conditions)[1:] != self._shape:
            raise ValueError(
                f"condition: shape {np.shape(conditions)}, expected (b, {', '.join(map(str, self._shape))})"
            )
        return np.array([self._row(row) for row in np.asarray(conditions).astype("<f2")], np.int32)

    def _row(self, condition: np.ndarray) -> int:
        data = condition.tobytes()
        key = hashlib.blake2b(data, digest_size=16).digest()  # the rows themselves may fill gigabytes
        if key not in self._rows:
            self._rows[key] = len(self._rows)
            self._file.write(data)
        return self._rows[key]

    def close(self) -> None:
        self._file.close()


def read_condition(path: str, row: int, shape: tuple[int, ...]) -> np.ndarray:
    """Row `row` of a file of embeddings, float32 of `shape`.

    Raises:
      ValueError: the file is not that long.
    """
    size = math.prod(shape)
    condition = np.fromfile(path, "<f2", count=size, offset=2 * size * row)
    if condition.size != size:
        raise ValueError(f"{path} has no row {row}")
    return condition.reshape(shape).astype(np.float32)


class CaptionWriter:
    """Collects distinct captions, and the sets of them that images have."""

    def __init__(self, path: str):
        self.path = path
        self._captions: dict[str, int] = {}
        self._sets: dict[tuple[int, ...], int] = {}

    def add(self, captions: np.ndarray | Sequence[str]) -> np.ndarray:
        """The numbers int32 (b,) of the sets of b images; each is given as a text with one caption on each line."""
        sets = (caption_files.split(text) for text in captions)
        numbers = (tuple(self._captions.setdefault(text, len(self._captions)) for text in texts) for texts in sets)
        return np.array([self._sets.setdefault(key, len(self._sets)) for key in numbers], np.int32)

    def close(self) -> None:
        """Writes the file."""
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump({"captions": list(self._captions), "sets": list(self._sets)}, file, ensure_ascii=False)


class CaptionTable:
    """The captions of several shards as one list of distinct ones.

    Attributes:
      captions: the distinct captions.
    """

    def __init__(self, paths: Sequence[str]):
        """Reads what a `CaptionWriter` wrote for each of the shards.

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
        """The numbers in `captions` of set (shard, number), int32 (m,)."""
        shard, number = place
        return self._sets[shard][number]
