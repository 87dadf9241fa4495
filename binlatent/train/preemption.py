"""How a run learns that it is asked to end."""

import contextlib
import os
import signal

import jax


class Preempted(Exception):
    """A run was asked to end and has saved its state.

    Args:
      name: of its stage.
      step: steps that it has done.
      interrupted: it was asked by a person (Ctrl-C), not by the machine.
    """

    def __init__(self, name: str, step: int, *, interrupted: bool = False):
        saved = "its state is saved, run again to resume" if step else "there was nothing to save yet"
        super().__init__(f"{name}: stopped at step {step} as asked; {saved}")
        self.interrupted = interrupted


class StopRequest:
    """Whether the run has been asked to end: by SIGTERM, by Ctrl-C, or by the cluster's notice to one of many processes.

    The first Ctrl-C asks; from then on the signal has the effect that the operating system gives it, so that a second one
    ends the process at once, whatever it is in. Under `jax.distributed` the runtime catches SIGTERM itself and agrees on
    one call with every process; a Ctrl-C is handed on to it.
    """

    def __init__(self):
        self.interrupted = False
        self._asked = False
        self._distributed = jax.distributed.is_initialized()
        self._previous = {}
        caught = (signal.SIGINT,) if self._distributed else (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(ValueError):  # not the main thread (a notebook's worker): there is nothing to catch
            self._previous = {number: signal.signal(number, self._ask) for number in caught}

    def _ask(self, number: int, _) -> None:
        self._asked = True
        if number == signal.SIGINT:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._distributed:
                os.kill(os.getpid(), signal.SIGTERM)

    def asked(self, call: int) -> bool:
        """Whether to end now. To be asked once before every call of the training program.

        Args:
          call: how many calls there have been. The processes agree on the first call that none has begun, which they
            find by equality: a count that leaves numbers out, as that of steps may, would miss it.
        """
        if not self._distributed:
            return self._asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(call)

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
