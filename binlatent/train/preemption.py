"""Requests to stop a run: Ctrl-C, SIGTERM, preemption."""

import contextlib
import itertools
import os
import signal

import jax

# Of the process and not of a stage, as the runtime's agreement is: one that is reached at the end of a stage holds for
# the first call of the next.
_CALLS = itertools.count()


class Preempted(Exception):
    """A run stopped as requested and saved its state.

    Args:
      name: of its stage.
      step: number of completed steps.
      interrupted: by Ctrl-C, rather than by the machine.
    """

    def __init__(self, name: str, step: int, *, interrupted: bool = False):
        saved = "its state is saved, run again to resume" if step else "there was nothing to save yet"
        super().__init__(f"{name}: stopped at step {step} as requested; {saved}")
        self.interrupted = interrupted


class StopRequest:
    """Whether the run has been asked to stop: by SIGTERM, Ctrl-C, or the cluster's notice to one of many processes.

    The first Ctrl-C is a request and restores the signal's default action, so that a second one ends the process
    immediately. Under `jax.distributed` the runtime catches SIGTERM itself and lets all processes agree on one call;
    Ctrl-C is forwarded to it.
    """

    def __init__(self):
        self.interrupted = False
        self._asked = False
        self._distributed = jax.distributed.is_initialized()
        self._previous = {}
        caught = (signal.SIGINT,) if self._distributed else (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(ValueError):  # only the main thread can catch signals
            self._previous = {number: signal.signal(number, self._ask) for number in caught}

    def _ask(self, number: int, _) -> None:
        self._asked = True
        if number == signal.SIGINT:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._distributed:
                os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> bool:
        """Whether to stop now. Must be called before every call of the training program and at the end of a stage.

        The processes agree on the first call that none has begun and compare for equality, so a count that skips
        numbers, like that of steps, could miss it.
        """
        if not self._distributed:
            return self._asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(next(_CALLS))

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
