"""The manifest of a directory of packed codes: record layout, origin, finished files."""

import dataclasses
import json
import math
import os
from typing import Any

import numpy as np
from etils import epath

from binlatent.data.options import MOST_VIEWS
from binlatent.errors import UserError
from binlatent.files import write_atomic

FORMAT = "binlatent codes 3"
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeSpec:
    """What the codes were made from, and what is stored with them.

    Attributes:
      autoencoder: fingerprint of the autoencoder that encoded them.
      data: fingerprint of the data set, `Splits.fingerprint`.
      code_shape: (y, x, k).
      num_classes: 0 if no labels are stored.
      class_names: in the order of the labels.
      condition_shape: of one embedding; empty if none are stored.
      captions: whether captions are stored.
      flips: whether the mirrored images' codes are stored too, as many as of the images.
      views: codes of an image, the first thresholded; see `CodeOptions`.
    """

    autoencoder: str
    data: str
    code_shape: tuple[int, int, int]
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    condition_shape: tuple[int, ...] = ()
    captions: bool = False
    flips: bool = False
    views: int = 1

    @property
    def count(self) -> int:
        """Codes stored for each image."""
        return self.views * (2 if self.flips else 1)

    @property
    def record(self) -> np.dtype:
        """The layout of one record; `condition` and `caption` are rows of the tables beside the shard."""
        size = -(-math.prod(self.code_shape) // 8)
        fields = [("code", "u1", (size,))]
        if self.count > 1:
            fields.append(("views", "u1", (self.count - 1, size)))
        if self.num_classes:
            fields.append(("label", "<i4"))
        if self.condition_shape:
            fields.append(("condition", "<i4"))
        if self.captions:
            fields.append(("caption", "<i4"))
        return np.dtype(fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A finished file: its name, size in bytes and SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A shard's number of examples and its files; `conditions` and `captions` are None if the spec has none."""

    count: int
    records: File
    conditions: File | None = None
    captions: File | None = None

    @property
    def files(self) -> list[File]:
        """The files that exist."""
        return [file for file in (self.records, self.conditions, self.captions) if file is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a directory of codes: `spec`, and the shards of every split in order."""

    spec: CodeSpec
    shards: dict[str, tuple[Shard, ...]]

    def count(self, split: str) -> int:
        """Number of codes of a split: its images, less those that could not be read."""
        return sum(shard.count for shard in self.shards[split])

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `manifest.json`, unless it is unchanged."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        content["counts"] = {split: self.count(split) for split in self.shards}  # not read back
        path, text = epath.Path(directory) / MANIFEST, json.dumps(content, indent=1)
        if not path.exists() or path.read_bytes() != text.encode():
            write_atomic(path, text)

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Manifest":
        """Reads `manifest.json`.

        Raises:
          UserError: it is missing or unreadable, or another version of this package wrote it.
        """
        path = epath.Path(directory) / MANIFEST
        if not path.exists():
            raise UserError(f"{directory}: no finished codes here ({MANIFEST} is missing); run `binlatent encode`.")
        try:
            content = json.loads(path.read_text())
            if (found := _typed(content, dict, "the file")["format"]) != FORMAT:
                raise ValueError(f"format {found!r}, expected {FORMAT!r}: another version of binlatent wrote it")
            spec = _spec(content["spec"])
            shards = {
                split: tuple(shard_of(shard, spec) for shard in _typed(part, list, split))
                for split, part in _typed(content["shards"], dict, "shards").items()
            }
            return cls(spec=spec, shards=shards)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise UserError(f"{path} cannot be read ({reason}); run `binlatent encode` again.") from error


def _spec(content: Any) -> CodeSpec:
    kinds = {
        "autoencoder": str, "data": str, "code_shape": list, "num_classes": int, "class_names": list,
        "condition_shape": list, "captions": bool, "flips": bool, "views": int,
    }  # fmt: skip
    values = {name: _typed(content[name], kind, name) for name, kind in kinds.items()}
    spec = CodeSpec(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    for name in ("code_shape", "condition_shape"):
        if not all(type(side) is int and 0 < side < 2**20 for side in getattr(spec, name)):
            raise ValueError(f"{name} is {values[name]}")
    if len(spec.code_shape) != 3 or math.prod(spec.code_shape) > 2**31 or math.prod(spec.condition_shape) > 2**31:
        raise ValueError(f"code_shape is {spec.code_shape} and condition_shape {spec.condition_shape}")
    if not all(isinstance(name, str) for name in spec.class_names) or len(spec.class_names) != spec.num_classes:
        raise ValueError(f"num_classes is {spec.num_classes}, class_names are {values['class_names']}")
    if not 1 <= spec.views <= MOST_VIEWS:
        raise ValueError(f"views is {spec.views}")
    return spec


def shard_of(content: Any, spec: CodeSpec) -> Shard:
    """Parses a shard from JSON, checked against a spec. Raises ValueError, TypeError or KeyError if it is invalid."""
    files = {name: _file(_typed(content, dict, "shard")[name]) for name in ("records", "conditions", "captions")}
    wanted = {"records": True, "conditions": bool(spec.condition_shape), "captions": spec.captions}
    for name, file in files.items():
        if (file is not None) != wanted[name]:
            raise ValueError(f"the {name} of a shard are {file}")
    return Shard(count=_natural(content["count"], "count"), **files)


def _file(content: Any) -> File | None:
    if content is None:
        return None
    name, sha256 = (_typed(_typed(content, dict, "file")[key], str, key) for key in ("name", "sha256"))
    if not name or os.path.basename(name) != name or "\0" in name:
        raise ValueError(f"name is {name!r}; a file beside the manifest is expected")
    return File(name=name, bytes=_natural(content["bytes"], "bytes"), sha256=sha256)


def _natural(value: Any, name: str) -> int:
    if _typed(value, int, name) < 0:
        raise ValueError(f"{name} is {value}; a non-negative number is expected")
    return value


def _typed(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name} is {value!r:.80}; {kind.__name__} is expected")
    return value
