"""Records and shows the metrics, evaluations and previews of a run."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from binlatent.console import say
from binlatent.train.goodput import Goodput
from binlatent.train.metrics import MetricWriter
from binlatent.train.options import Training
from binlatent.train.progress import Progress
from binlatent.train.throughput import Window
from binlatent.typing import Array


class NonFiniteLoss(Exception):
    """The loss or its gradient is not finite at `step`."""

    def __init__(self, step: int, loss: float):
        super().__init__(f"the loss or its gradient is not finite at step {step} (loss {loss})")


class Recorder:
    """Writes and shows metrics of training and evaluation.

    The metrics of a call are read while the next call runs, so that the device never waits for the host.

    Args:
      name: of the stage, in messages.
      folder: of the stage.
      training: the interval of records, and whether a non-finite loss is an error.
      start: the step at which the run starts.
      flops: (step) → operations of that step; None if the devices' peak is unknown.
      goodput: the clock of the run; its values are written at every evaluation, and shown at the end.
    """

    def __init__(
        self, name: str, folder: epath.Path, training: Training, *, start: int, flops: Callable[[int], int | None],
        goodput: Goodput,
    ):  # fmt: skip
        self._name, self._training, self._flops, self._goodput = name, training, flops, goodput
        self._window = Window(training.batch_size)
        self._writer = MetricWriter(folder, start)
        self._progress = Progress(name, start, training.num_steps)
        self._pending: tuple[int, dict[str, Array]] | None = None

    def add(self, step: int, metrics: dict[str, Array]) -> None:
        """Adds the metrics (steps,) of a call that was just dispatched and ends at `step`; reads those of the last call.

        Raises:
          NonFiniteLoss: the last call's loss is not finite, and the run stops in that case.
        """
        counted = self._pending is not None
        self.settle()
        if counted:
            self._goodput.stepped(self._training.steps_per_call)
        else:
            self._goodput.restart()
        self._pending = (step, metrics)
        self._progress.move(step)

    def settle(self) -> None:
        """Reads the metrics of the last call; raises NonFiniteLoss as `add` does."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        metrics = jax.device_get(metrics)
        num = self._training.steps_per_call
        self._window.ran(num)
        for i in range(num):
            self._add_step(step - num + 1 + i, {name: float(value[i]) for name, value in metrics.items()})

    def _add_step(self, step: int, values: dict[str, float]) -> None:
        if not values["finite"] and self._training.on_nonfinite == "stop":
            raise NonFiniteLoss(step, values["loss"])
        self._window.add(values)
        if self._training.due(step, self._training.log_every):
            record = self._window.flush(self._flops(step - 1))
            self._writer.write(step, record, "train")
            self._progress.show(record)

    def evaluated(self, step: int, values: dict[str, Any], warnings: list[str], preview: np.ndarray | None) -> None:
        """Writes and shows the metrics and warnings of an evaluation, and a preview (h, w, c) uint8."""
        self._writer.write(step, values | {"warnings": len(warnings)}, "validation")
        self._writer.write(step, self._goodput.values(), "time")
        self._progress.say(step, values, warnings)
        if preview is not None:
            self._writer.write_image(step, self._name, preview)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures time spent waiting for data."""
        started = time.perf_counter()
        with self._goodput.during("input"):
            yield
        self._window.waited += time.perf_counter() - started

    def pause(self) -> None:
        """Excludes the time up to now, which was not spent on steps, from the rate."""
        self._window.pause()

    def close(self) -> None:
        self._progress.close()
        self._writer.close()
        say(f"{self._name}: {self._goodput.summary()}")
