"""Packed codes on disk: what `binlatent encode` writes and the prior trains from.

A directory of ArrayRecord files, one record an example, and `manifest.json`, written last. A record is, without gaps:

    code       uint8 (n_bytes,)   bits in the order (y, x, k), most significant first, as `binlatent.bits.pack`
    flipped    uint8 (n_bytes,)   the same of the mirrored image, where flips are stored
    label      int32              where there are classes
    condition  float32 (...)      where there are embeddings

Hosts write shards of their own and need no word from each other: a shard is written beside its place and renamed into
it, then a small note (`….json`) with its checksum follows. A shard without a note, or with the note of another
autoencoder or data set, is written again; all others are kept when an interrupted encode goes on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from etils import epath

from binlatent.data.manifest import FORMAT, CodeSpec, Manifest, Shard
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Example, Source
from binlatent.data.transforms import ChooseFlip, drop_flipped
from binlatent.errors import UserError
from binlatent.files import atomic, cache_directory, digest, write_atomic

SHARD_SIZE = 16_384  # examples; 1 KiB codes make shards of 16 MiB
HASH_ON_OPEN = 256 * 2**20  # bytes; larger caches rely on the checksums inside ArrayRecord files, tested on every read


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
        directory: where to write; made if it does not exist.
        spec: what the codes are.
        examples: the number of examples of every split.
        shard_size: examples of a shard.
        """
        self._directory, self._spec, self._size = epath.Path(directory), spec, shard_size
        self._examples = dict(examples)
        self._identity = digest(json.dumps([FORMAT, dataclasses.asdict(spec), self._examples, shard_size]))
        self._directory.mkdir(parents=True, exist_ok=True)

    def shards(self) -> list[tuple[str, int]]:
        """All (split, index), finished or not."""
        return [(split, i) for split, count in self._examples.items() for i in range(-(-count // self._size))]

    def missing(self, process_index: int = 0, process_count: int = 1) -> list[tuple[str, int]]:
        """The (split, index) that this process still has to write; which are its own does not change as others finish."""
        own = self.shards()[process_index::process_count]
        return [(split, i) for split, i in own if self._finished(split, i) is None]

    def span(self, split: str, index: int) -> tuple[int, int]:
        """First example of a shard, and how many: `start` and `limit` of `eval_batches`."""
        start = index * self._size
        return start, min(self._size, self._examples[split] - start)

    @contextlib.contextmanager
    def shard(self, split: str, index: int) -> Iterator[Callable[..., None]]:
        """Gives `write(code=…, flipped=…, label=…, condition=…)`: arrays (b, ...), one row an example.

        The shard exists when the block ends without an exception, and not before.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self._path(split, index)
        with atomic(path) as temporary:
            writer = ArrayRecordWriter(temporary, "group_size:1,uncompressed")
            count = 0

            def write(**columns: np.ndarray):
                nonlocal count
                for record in self._records(columns):
                    writer.write(record.tobytes())
                    count += 1

            try:
                yield write
            finally:
                writer.close()
            shard = Shard(file=path.name, count=count, bytes=os.path.getsize(temporary), sha256=_sha256(temporary))
        note = {"identity": self._identity, **dataclasses.asdict(shard)}
        write_atomic(path.with_suffix(".json"), json.dumps(note))

    def finish(self) -> Manifest:
        """Writes the manifest; removes shards of other codes that lie in the directory.

        Raises:
          UserError: shards are missing.
        """
        notes = {place: self._finished(*place) for place in self.shards()}
        missing = [self._path(*place).name for place, note in notes.items() if note is None]
        if missing:
            raise UserError(
                f"{self._directory}: {len(missing)} of {len(notes)} shards of codes are missing, the first is {missing[0]}; "
                "run `binlatent encode` again, it continues where it stopped."
            )
        shards = {split: tuple(note for (s, _), note in notes.items() if s == split) for split in self._examples}
        manifest = Manifest(spec=self._spec, shards=shards)
        manifest.save(self._directory)
        known = {note.file for note in notes.values()}
        for path in self._directory.glob("*-of-*.arrayrecord*"):
            if path.name not in known:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
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
            shard = Shard(**content)
        except (ValueError, KeyError, TypeError):
            return None  # a note that was not written to its end
        return shard if path.stat().length == shard.bytes else None

    def _records(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        layout = self._spec.record
        if set(columns) != set(layout.names):
            raise ValueError(f"columns {sorted(columns)} given, a record of these codes has {sorted(layout.names)}")
        records = np.empty(len(columns["code"]), layout)
        for name, column in columns.items():
            if np.shape(column) != records[name].shape:
                raise ValueError(f"{name}: shape {np.shape(column)}, expected {records[name].shape}")
            records[name] = column
        return records


class CodeSource(Source):
    """Codes of one split, by random access: `code` uint8 (n_bytes,), and `label`, `condition` as encoded."""

    threads = 1

    def __init__(
        self,
        directory: str | os.PathLike,
        split: str,
        *,
        expected_fingerprint: str | None = None,
        expected_data: str | None = None,
    ):
        """Opens a split and tests that it is whole.

        Sizes are always compared. SHA-256 is computed for splits up to `HASH_ON_OPEN` bytes; in larger ones damage is
        found by the checksums of the ArrayRecord format when the record is read.

        Args:
          directory: what a CodeWriter wrote.
          split: `train` or `validation`.
          expected_fingerprint: of the autoencoder that is going to decode; None: any.
          expected_data: fingerprint of the data set that the config describes; None: any.

        Raises:
          UserError: codes of another autoencoder or data set, missing, or damaged.
        """
        super().__init__()
        manifest = Manifest.load(directory)
        self.spec = spec = manifest.spec
        if expected_fingerprint is not None and spec.autoencoder != expected_fingerprint:
            raise UserError(
                f"{directory}: these codes were made by autoencoder {spec.autoencoder}, not by {expected_fingerprint}, and "
                "mean nothing to another one; run `binlatent encode` again."
            )
        if expected_data is not None and spec.data != expected_data:
            raise UserError(
                f"{directory}: these codes are of data set {spec.data}, the config describes {expected_data}; run "
                "`binlatent encode` again, or restore the data section of the config."
            )
        if split not in manifest.shards:
            raise UserError(f"{directory}: no split '{split}'; there are {', '.join(manifest.shards)}.")
        self._directory, self._split, self._record = os.fspath(directory), split, spec.record
        shards = [shard for shard in manifest.shards[split] if shard.count]
        hashed = sum(shard.bytes for shard in shards) <= HASH_ON_OPEN
        self._files = [(_checked(epath.Path(directory) / shard.file, shard, hashed), shard.count) for shard in shards]
        self._reader = self._open()

    def _open(self):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([_File(path, 0, count, count) for path, count in self._files])

    def __len__(self) -> int:
        return sum(count for _, count in self._files)

    def __repr__(self) -> str:
        return f"CodeSource({self._directory!r}, {self._split!r}, {len(self)} codes)"

    def read(self, index: int) -> Example:
        """`code`, and `flipped`, `label`, `condition` where they are stored."""
        try:
            record = np.frombuffer(self._reader[index], self._record)[0]
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self!r}: code {index} cannot be read, the shard is damaged ({error}); run `binlatent encode` again."
            ) from error
        return {name: record[name].copy() for name in self._record.names}

    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        return ChooseFlip()

    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        return drop_flipped


@dataclasses.dataclass(frozen=True)
class _File:
    """ArrayRecord's FileInstruction: which examples of which file; saves opening every file to count them."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def _checked(path: epath.Path, shard: Shard, hashed: bool) -> str:
    """The local path of a shard, compared with the manifest."""
    again = "remove it and run `binlatent encode` again: only what is missing is encoded."
    if not path.exists():
        raise UserError(f"{path}: this shard of codes is missing; run `binlatent encode` again.")
    size = path.stat().length
    if size != shard.bytes:
        raise UserError(
            f"{path}: {size} bytes, but {shard.bytes} were written, so it was cut short or changed; {again}"
        )
    local = _local(path, shard)
    if hashed and _sha256(local) != shard.sha256:
        raise UserError(f"{path}: its checksum is not the one it was written with, so it is damaged; {again}")
    return local


def _local(path: epath.Path, shard: Shard) -> str:
    """ArrayRecord files are read from a local disk; remote ones are fetched once, into the user's cache directory."""
    if "://" not in os.fspath(path):
        return os.fspath(path)
    local = cache_directory() / "codes" / f"{shard.sha256[:32]}.arrayrecord"
    if not local.exists() or local.stat().st_size != shard.bytes:
        with atomic(local) as temporary:
            path.copy(temporary, overwrite=True)
    return str(local)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
