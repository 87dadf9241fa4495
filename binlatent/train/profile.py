"""Traces of selected steps for TensorBoard's profiler."""

import jax
from etils import epath

from binlatent.console import warn


class Tracer:
    """Traces selected steps of a run.

    Args:
      folder: of the trace.
      steps: (first, last); None traces nothing.
      run: the first step of the run, and the one after its last.
    """

    def __init__(self, folder: epath.PathLike, steps: tuple[int, int] | None, *, run: tuple[int, int]):
        if steps and not run[0] <= steps[0] < run[1]:
            warn(
                f"nothing is traced: the profile begins at step {steps[0]}, and the run has steps {run[0]} to {run[1] - 1}"
            )
        self._folder, self._steps, self._tracing = str(folder), steps, False

    def before(self, step: int, num: int) -> None:
        """Call this before the steps `step` … `step + num - 1`."""
        if self._steps and step <= self._steps[0] < step + num:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, result) -> None:
        """Call this once `step` steps have been dispatched, with their `result`."""
        if self._tracing and step > self._steps[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a trace that is still open."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
