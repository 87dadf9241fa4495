"""How a run learns that it is asked to end."""

import signal

import jax

from binlatent.checkpoint import Checkpoints


class Preempted(Exception):
    """The run was asked to end; its state is saved."""


class StopRequest:
    """Whether the run has been asked to end: SIGTERM on one process, the cluster's notice on many.

    Under `jax.distributed` the runtime catches SIGTERM itself and tells every process the same step.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._distributed = jax.distributed.is_initialized()
        self._asked = False
        self._previous = None
        if not self._distributed:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._ask)
            except ValueError:  # not the main thread (a notebook's worker): there is nothing to catch
                self._previous = None

    def _ask(self, *_):
        self._asked = True

    def asked(self, step: int) -> bool:
        return self._checkpoints.reached_preemption(step) if self._distributed else self._asked

    def close(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
