"""Metrics, and their files: `metrics.jsonl`, TensorBoard events, PNG previews.

A metric is a clu metric, or another object with its methods `merge` and `compute` (`bits.BitStatistics`).
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from binlatent.console import warn
from binlatent.errors import UserError
from binlatent.files import write_atomic
from binlatent.typing import Array

CHUNK = 1000  # records per file in object stores


def mean(values: Array, mask: Array | None = None):
    """A `clu.metrics.Average` of per-example values, without padding."""
    from clu import metrics

    return metrics.Average.from_model_output(values, mask)


@flax.struct.dataclass
class StandardError:
    """Standard error of a mean over examples whose values are Monte Carlo estimates: the error of the estimates only."""

    variance: Array  # summed over examples
    count: Array

    @classmethod
    def from_draws(cls, values: Array, mask: Array) -> "StandardError":
        """From draws (r, b), r ≥ 2, stratified over a range and in order, and a mask (b,).

        Neighbours differ by noise and by one stratum; half their mean squared difference bounds a draw's variance.
        """
        r = values.shape[0]
        variance = (jnp.diff(values, axis=0) ** 2).mean(0) / 2 / r
        return cls(jnp.where(mask, variance, 0.0).sum(), mask.sum().astype(jnp.float32))

    def merge(self, other: "StandardError") -> "StandardError":
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> Array:
        return jnp.sqrt(self.variance) / self.count


def merge(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges the metrics of several batches by name."""
    total: dict[str, Any] = {}
    for part in parts:
        total = {name: total[name].merge(metric) for name, metric in part.items()} if total else dict(part)
    return total


def compute(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Values of metrics as floats or lists of floats; a metric with several values contributes each under its own name."""
    values: dict[str, Any] = {}
    for name, metric in metrics.items():
        value = metric.compute() if hasattr(metric, "compute") else metric
        values |= value if isinstance(value, Mapping) else {name: value}
    return {name: np.asarray(value, np.float64).tolist() for name, value in jax.device_get(values).items()}


class MetricWriter:
    """Writes the records of a run into its folder; only process 0 writes.

    `metrics.jsonl` has one JSON object per line: `step` and the values by name, as `train/…` and `validation/…`. When a
    run resumes at `start_step`, later records of the interrupted run are dropped, so that the file looks as if there had
    been no interruption.

    Object stores cannot append. There, further records go to files `metrics-<n>.jsonl` of `CHUNK` records each; only the
    last one is rewritten, in a separate thread.
    """

    def __init__(self, folder: epath.PathLike, start_step: int = 0):
        self._folder = epath.Path(folder)
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(r) for r in read_records(self._folder) if r["step"] <= start_step]
        self._path = self._folder / "metrics.jsonl"
        write_atomic(self._path, "".join(line + "\n" for line in lines))
        for chunk in _chunks(self._folder):
            chunk.unlink()
        self._local = "://" not in os.fspath(self._folder)
        if self._local:
            import tensorboardX

            self._board = tensorboardX.SummaryWriter(os.fspath(self._folder), purge_step=start_step + 1)
        else:
            self._chunk, self._lines = 1, []
            self._thread = concurrent.futures.ThreadPoolExecutor(1, "metrics")
            self._writing: concurrent.futures.Future | None = None

    def write(self, step: int, values: Mapping[str, Any], prefix: str) -> None:
        """Adds one record.

        Raises:
          UserError: it cannot be written, for example on a full disk; in an object store, an earlier record could not be.
        """
        if not self._active:
            return
        line = json.dumps({"step": step} | {f"{prefix}/{name}": value for name, value in values.items()})
        with self._explained():
            if not self._local:
                self._write_chunk(line)
                return
            with self._path.open("a") as file:
                file.write(line + "\n")
            board = self._events()
            for name, value in values.items() if board else ():
                if isinstance(value, list):
                    board.add_histogram(f"{prefix}/{name}", np.asarray(value), step)
                else:
                    board.add_scalar(f"{prefix}/{name}", value, step)

    def _events(self):
        """TensorBoard's writer; None once its thread has ended, as it does when a write fails: its queue would block."""
        if self._board is not None and not self._board._get_file_writer().event_writer._worker.is_alive():
            warn(f"TensorBoard's events in {self._folder} end here: a write failed; metrics.jsonl goes on")
            self._board = None
        return self._board

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written: {error}. Free space or correct the path, then run the same command again to "
                "resume."
            ) from error

    def _write_chunk(self, line: str) -> None:
        """Adds a line to the current chunk, and writes the chunk unless an earlier write is still running."""
        self._lines.append(line)
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        if self._writing is None or len(self._lines) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        text, path = "".join(line + "\n" for line in self._lines), self._folder / f"metrics-{self._chunk:06d}.jsonl"
        self._writing = self._thread.submit(path.write_text, text)
        if len(self._lines) == CHUNK:
            self._chunk, self._lines = self._chunk + 1, []

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Saves an image (h, w, c) uint8 as `previews/<name>-<step>.png` and for TensorBoard."""
        if not self._active:
            return
        from PIL import Image

        folder = self._folder / "previews"
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{name}-{step:07d}.png").open("wb") as file:
                Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")
        if self._local and (board := self._events()):
            board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Waits until everything is written. A failure is only a warning, so that it does not hide why the run ended."""
        if not self._active:
            return
        try:
            if self._local:
                if board := self._events():
                    board.close()
            else:
                self._flush()
                self._thread.shutdown()
                self._writing.result()
        except OSError as error:
            warn(f"metrics in {self._folder} are incomplete: {error}")


def _chunks(folder: epath.Path) -> list[epath.Path]:
    return sorted(folder.glob("metrics-*.jsonl"))


def read_records(folder: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the records of a stage's metrics, oldest first; lines truncated by a crash are skipped."""
    folder, records = epath.Path(folder), []
    path = folder / "metrics.jsonl"
    files = ([path] if path.exists() else []) + (_chunks(folder) if folder.exists() else [])
    for line in itertools.chain.from_iterable(file.read_text().splitlines() for file in files):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a killed run
            continue
    return records
