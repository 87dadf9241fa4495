"""Packed codes on disk: what `binlatent encode` writes and the prior trains from.

A directory of ArrayRecord files, one record per example, and `manifest.json`, written last. A record holds, unpadded:

    code       uint8 (n_bytes,)     bits in the order (y, x, k), most significant first, as `binlatent.bits.pack`
    views      uint8 (n, n_bytes)   other codes of the same image, if there are any: see `CodeOptions`
    label      int32                if there are classes
    condition  int32                if there are embeddings: a row of the file `….conditions` beside the shard
    caption    int32                if there are captions: a set of captions in the file `….captions` beside the shard

Each host writes its own shards, without communication: each file is written under a temporary name and renamed, and a
note (`….json`) with the checksums is written last. When an interrupted encode is resumed, shards without a note, or with
the note of another autoencoder or data set, are written again; the others are kept.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from binlatent.data.manifest import FORMAT, CodeSpec, File, Manifest, Shard, shard_of
from binlatent.data.options import CodeOptions, DataOptions
from binlatent.data.sources.base import Example, Source
from binlatent.data.tables import CaptionTable, CaptionWriter, ConditionWriter, read_condition
from binlatent.data.transforms import DrawCode, plain_code
from binlatent.errors import UserError
from binlatent.files import atomic, cache_directory, digest, write_atomic

SHARD_SIZE = 16_384  # examples; 1 KiB codes make shards of 16 MiB
HASH_ON_OPEN = 256 * 2**20  # bytes; larger splits rely on ArrayRecord's own checksums, verified on every read


class CodeWriter:
    """Writes the codes of a data set, shard by shard, from any number of processes.

    writer = CodeWriter(directory, spec, examples={"train": 50_000, "validation": 5_000})
    for split, index in writer.missing(process_index, process_count):
        with writer.shard(split, index) as write:
            for batch in …:                   # examples writer.span(split, index), in order
                write(code=…, label=…)
    # when all processes are done, one of them:
    writer.finish()
    """

    def __init__(
        self, directory: str | os.PathLike, spec: CodeSpec, *, examples: Mapping[str, int], shard_size: int = SHARD_SIZE
    ):
        """Args:
        directory: created if it does not exist.
        spec: describes the codes.
        examples: number of examples per split.
        shard_size: number of examples per shard.
        """
        self._directory, self._spec, self._size = epath.Path(directory), spec, shard_size
        self._examples = dict(examples)
        self._identity = digest(json.dumps([FORMAT, dataclasses.asdict(spec), self._examples, shard_size]))
        self._directory.mkdir(parents=True, exist_ok=True)

    def shards(self) -> list[tuple[str, int]]:
        """All shards (split, index), finished or not."""
        return [(split, i) for split, count in self._examples.items() for i in range(-(-count // self._size))]

    def missing(self, process_index: int = 0, process_count: int = 1) -> list[tuple[str, int]]:
        """The shards (split, index) that this process has yet to write, of its fixed share of them."""
        own = self.shards()[process_index::process_count]
        return [(split, i) for split, i in own if self._finished(split, i) is None]

    def span(self, split: str, index: int) -> tuple[int, int]:
        """The first example of a shard and the number of them: `start` and `limit` of `eval_batches`."""
        start = index * self._size
        return start, min(self._size, self._examples[split] - start)

    @contextlib.contextmanager
    def shard(self, split: str, index: int) -> Iterator[Callable[..., None]]:
        """Yields `write(code=…, views=…, label=…, condition=…, caption=…)`, which takes arrays (b, ...).

        `condition` is float (b, ...); `caption` holds b texts with one caption per line, as `eval_batches` returns them.
        The shard comes into existence when the block ends without an exception.
        """
        path = self._path(split, index)
        with contextlib.ExitStack() as renames:
            records = renames.enter_context(atomic(path))
            tables = {}
            if self._spec.condition_shape:
                conditions = renames.enter_context(atomic(path.with_suffix(".conditions")))
                tables["condition"] = ConditionWriter(conditions, self._spec.condition_shape)
            if self._spec.captions:
                tables["caption"] = CaptionWriter(renames.enter_context(atomic(path.with_suffix(".captions"))))
            count = 0
            with _written(records, tables) as writer:

                def write(**columns: np.ndarray) -> None:
                    nonlocal count
                    for record in self._records(columns, tables):
                        writer.write(record.tobytes())
                        count += 1

                yield write
            shard = Shard(
                count=count,
                records=_file(records, path.name),
                **{f"{name}s": _file(table.path, f"{path.stem}.{name}s") for name, table in tables.items()},
            )
        note = {"identity": self._identity, **dataclasses.asdict(shard)}
        write_atomic(path.with_suffix(".json"), json.dumps(note))

    def finish(self) -> Manifest:
        """Writes the manifest; removes the directory's shards of other codes.

        Raises:
          UserError: shards are missing.
        """
        notes = {place: self._finished(*place) for place in self.shards()}
        missing = [self._path(*place).name for place, note in notes.items() if note is None]
        if missing:
            raise UserError(
                f"{self._directory}: {len(missing)} of {len(notes)} shards of codes are missing, the first is {missing[0]}; "
                "run `binlatent encode` again: it continues where it stopped."
            )
        shards = {split: tuple(note for (s, _), note in notes.items() if s == split) for split in self._examples}
        manifest = Manifest(spec=self._spec, shards=shards)
        manifest.save(self._directory)
        known = {file.name for shard in notes.values() for file in shard.files}
        known |= {self._path(*place).with_suffix(".json").name for place in notes}
        for suffix in ("arrayrecord", "conditions", "captions", "json"):
            for path in self._directory.glob(f"*-of-*.{suffix}"):
                if path.name not in known:
                    path.unlink()
        return manifest

    def _path(self, split: str, index: int) -> epath.Path:
        total = -(-self._examples[split] // self._size)
        return self._directory / f"{split}-{index:05d}-of-{total:05d}.arrayrecord"

    def _finished(self, split: str, index: int) -> Shard | None:
        path = self._path(split, index)
        note = path.with_suffix(".json")
        if not (note.exists() and path.exists()):
            return None
        try:
            content = json.loads(note.read_text())
            if content.pop("identity") != self._identity:
                return None
            shard = shard_of(content, self._spec)
            complete = all((self._directory / file.name).stat().length == file.bytes for file in shard.files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # an unfinished note, or missing files
        return shard if complete else None

    def _records(self, columns: Mapping[str, np.ndarray], tables: Mapping[str, Any]) -> np.ndarray:
        layout = self._spec.record
        if set(columns) != set(layout.names):
            raise ValueError(f"columns are {sorted(columns)}; records of these codes have {sorted(layout.names)}")
        records = np.empty(len(columns["code"]), layout)
        for name, column in columns.items():
            column = tables[name].add(column) if name in tables else column
            if np.shape(column) != records[name].shape:
                raise ValueError(f"{name}: shape {np.shape(column)}, expected {records[name].shape}")
            records[name] = column
        return records


@contextlib.contextmanager
def _written(path: str, tables: Mapping[str, ConditionWriter | CaptionWriter]) -> Iterator[Any]:
    """Yields an ArrayRecord writer; closes it and the tables."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    try:
        yield writer
    finally:
        writer.close()
        for table in tables.values():
            table.close()


def code_columns(batch: Mapping[str, np.ndarray], spec: CodeSpec) -> dict[str, np.ndarray]:
    """The columns of records besides the code, for the unmasked examples of a batch.

    Args:
      batch: of `eval_batches(…, captions=spec.captions)`, with `mask`.
      spec: says which columns are stored.
    """
    wanted = {"label": spec.num_classes, "condition": spec.condition_shape, "caption": spec.captions}
    return {name: batch[name][batch["mask"]] for name, stored in wanted.items() if stored}


class CodeSource(Source):
    """The codes of one split, with random access: `code` uint8 (n_bytes,), and `label` and `condition` as encoded.

    An embedding is named `vector` or `tokens` in batches, as in `Condition`.
    `caption`, int32 (m,), holds the indices of an example's captions in the list `captions`; in batches it is int32 (b,),
    one index per example: drawn at random in training, the first in evaluation.

    Attributes:
      spec: describes the codes.
      captions: the distinct captions of the split; empty where none are stored.
    """

    threads = 1

    def __init__(
        self,
        directory: str | os.PathLike,
        split: str,
        *,
        expected_fingerprint: str | None = None,
        expected_data: str | None = None,
        expected_options: CodeOptions | None = None,
    ):
        """Opens a split and checks that it is complete.

        Sizes are always compared, SHA-256 for splits of up to `HASH_ON_OPEN` bytes. In larger ones ArrayRecord's checksums
        find damage when the record is read.

        Args:
          directory: written by a `CodeWriter`.
          split: `train` or `validation`.
          expected_fingerprint: of the autoencoder that will decode; None: any.
          expected_data: fingerprint of the data set that the config describes; None: any.
          expected_options: which codes of an image the config describes; None: any.

        Raises:
          UserError: the codes are missing, damaged, of another autoencoder or data set, or others of each image.
        """
        super().__init__()
        manifest = Manifest.load(directory)
        self.spec = spec = manifest.spec
        if expected_fingerprint is not None and spec.autoencoder != expected_fingerprint:
            raise UserError(
                f"{directory}: these codes were made by autoencoder {spec.autoencoder}, and {expected_fingerprint} cannot "
                "decode them; run `binlatent encode` again."
            )
        if expected_data is not None and spec.data != expected_data:
            raise UserError(
                f"{directory}: these codes are of data set {spec.data}, but the config describes {expected_data}; run "
                "`binlatent encode` again, or restore the data section of the config."
            )
        for name, found in (("flips", spec.flips), ("views", spec.views)):
            if expected_options is not None and found != getattr(expected_options, name):
                raise UserError(
                    f"{directory}: these codes were made with codes.{name}={found}, but the config says "
                    f"{getattr(expected_options, name)}; run `binlatent encode` again, or restore the config."
                )
        if split not in manifest.shards:
            raise UserError(f"{directory}: no split '{split}'; there are {', '.join(manifest.shards)}.")
        self._directory, self._split, self._record = os.fspath(directory), split, spec.record
        shards = [shard for shard in manifest.shards[split] if shard.count]
        hashed = sum(file.bytes for shard in shards for file in shard.files) <= HASH_ON_OPEN

        def opened(file: File | None) -> str:
            return "" if file is None else _checked(epath.Path(directory) / file.name, file, hashed)

        self._counts = [shard.count for shard in shards]
        self._ends = np.cumsum(self._counts)
        self._files = [opened(shard.records) for shard in shards]
        self._conditions = [opened(shard.conditions) for shard in shards]
        self._captions = CaptionTable([opened(shard.captions) for shard in shards]) if spec.captions else None
        self.captions = self._captions.captions if self._captions else []
        self._reader = self._open()

    def _open(self):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([_File(path, 0, n, n) for path, n in zip(self._files, self._counts, strict=True)])

    def __len__(self) -> int:
        return sum(self._counts)

    def __repr__(self) -> str:
        return f"CodeSource({self._directory!r}, {self._split!r}, {len(self)} codes)"

    def read(self, index: int) -> Example:
        """Reads `code`, and `views`, `label`, `condition` and `caption` if they are stored."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        try:
            record = np.frombuffer(self._reader[index], self._record)[0]
            example = {name: record[name].copy() for name in self._record.names}
            if "condition" in example:
                path, row = self._conditions[shard], int(example["condition"])
                example["condition"] = read_condition(path, row, self.spec.condition_shape)
            if "caption" in example:
                example["caption"] = self._captions[shard, int(example["caption"])]
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise UserError(
                f"{self!r}: code {index} cannot be read: the shard is damaged ({error}); run `binlatent encode` again."
            ) from error
        return example

    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        return DrawCode()

    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        return plain_code


@dataclasses.dataclass(frozen=True)
class _File:
    """ArrayRecord's FileInstruction: states the number of examples, so that files need not be opened to count them."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _checked(path: epath.Path, file: File, hashed: bool) -> str:
    """Checks a file against the manifest; returns its local path."""
    again = "remove it and run `binlatent encode` again, which encodes only missing shards."
    if not path.exists():
        raise UserError(f"{path}: this shard of codes is missing; run `binlatent encode` again.")
    size = path.stat().length
    if size != file.bytes:
        raise UserError(f"{path}: {size} bytes, but {file.bytes} were written, so it was truncated or changed; {again}")
    local = _local(path, file)
    if hashed and _sha256(local) != file.sha256:
        raise UserError(f"{path}: its checksum differs from the one it was written with, so it is damaged; {again}")
    return local


def _local(path: epath.Path, file: File) -> str:
    """The path of a local file; a remote one is first copied to the user's cache directory, for ArrayRecord."""
    if "://" not in os.fspath(path):
        return os.fspath(path)
    local = cache_directory() / "codes" / f"{file.sha256[:32]}{path.suffix}"
    if not local.exists() or local.stat().st_size != file.bytes:
        with atomic(local) as temporary:
            path.copy(temporary, overwrite=True)
    return str(local)


def _file(path: str, name: str) -> File:
    return File(name=name, bytes=os.path.getsize(path), sha256=_sha256(path))


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
