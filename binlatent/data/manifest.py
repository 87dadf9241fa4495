"""What a directory of packed codes holds: the layout of a record, where it came from, the finished files."""

import dataclasses
import json
import math
import os

import numpy as np
from etils import epath

from binlatent.errors import UserError
from binlatent.files import write_atomic

FORMAT = "binlatent codes 1"
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeSpec:
    """What codes are made of and from.

    Attributes:
      autoencoder: fingerprint of the network that encoded.
      data: fingerprint of the data set, `Splits.fingerprint`.
      code_shape: (y, x, k).
      num_classes: 0: no labels are stored.
      class_names: in the order of the labels.
      condition_shape: of one embedding; empty: none are stored.
      flips: whether the codes of the mirrored images are stored too.
    """

    autoencoder: str
    data: str
    code_shape: tuple[int, int, int]
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    condition_shape: tuple[int, ...] = ()
    flips: bool = False

    @property
    def record(self) -> np.dtype:
        """The layout of one record."""
        size = -(-math.prod(self.code_shape) // 8)
        fields = [("code", "u1", (size,))]
        if self.flips:
            fields.append(("flipped", "u1", (size,)))
        if self.num_classes:
            fields.append(("label", "<i4"))
        if self.condition_shape:
            fields.append(("condition", "<f4", self.condition_shape))
        return np.dtype(fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One finished file: its name, examples, bytes and SHA-256."""

    file: str
    count: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a directory of codes holds: `spec`, and the shards of every split in order."""

    spec: CodeSpec
    shards: dict[str, tuple[Shard, ...]]

    def count(self, split: str) -> int:
        """Examples of a split; fewer than the data set has where images could not be read."""
        return sum(shard.count for shard in self.shards[split])

    def save(self, directory: str | os.PathLike):
        """Writes `manifest.json`, whole or not at all."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        content["counts"] = {split: self.count(split) for split in self.shards}  # for people
        write_atomic(epath.Path(directory) / MANIFEST, json.dumps(content, indent=1))

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Manifest":
        """Reads `manifest.json`.

        Raises:
          UserError: there is none, or it is not readable.
        """
        path = epath.Path(directory) / MANIFEST
        if not path.exists():
            raise UserError(f"{directory}: no finished codes here ({MANIFEST} is missing); run `binlatent encode`.")
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}, expected {FORMAT!r}")
            spec = {k: tuple(v) if isinstance(v, list) else v for k, v in content["spec"].items()}
            shards = {split: tuple(Shard(**shard) for shard in part) for split, part in content["shards"].items()}
            return cls(spec=CodeSpec(**spec), shards=shards)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}); run `binlatent encode` again.") from error
