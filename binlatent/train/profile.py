"""A trace of chosen steps for TensorBoard's profiler."""

import jax
from etils import epath


class Tracer:
    """Traces some steps of a run.

    Args:
      folder: where the trace goes.
      steps: (first, last); None traces nothing.
    """

    def __init__(self, folder: epath.PathLike, steps: tuple[int, int] | None):
        self._folder, self._steps, self._tracing = str(folder), steps, False

    def before(self, step: int, num: int) -> None:
        """The steps `step` … `step + num - 1` are about to begin."""
        if self._steps and step <= self._steps[0] < step + num:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, result) -> None:
        """`step` steps have begun altogether, and give `result`."""
        if self._tracing and step > self._steps[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a trace that the end of the run cuts short."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
