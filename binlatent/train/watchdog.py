"""Says so when a step takes far longer than steps usually do; a hanging run is otherwise silent."""

import collections
import statistics
import sys
import threading
import time

FACTOR = 10  # times the usual step
LEAST_SECONDS = 60.0  # shorter silences are nobody's business


class Watchdog:
    """Watches the time between beats from a thread of its own.

    Args:
      name: of the stage, for the message.
      least_seconds: silence that is always allowed.
    """

    def __init__(self, name: str, *, least_seconds: float = LEAST_SECONDS):
        self._name, self._least = name, least_seconds
        self._recent: collections.deque[float] = collections.deque(maxlen=50)
        self._step, self._since, self._watching = 0, time.monotonic(), False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, step: int) -> None:
        """A step has begun; the time since the last beat is a step's, unless there was a pause."""
        now = time.monotonic()
        if self._watching:
            self._recent.append(now - self._since)
        self._step, self._since, self._watching = step, now, True

    def pause(self) -> None:
        """What follows (evaluation, saving) is no step; the next beat goes on."""
        self._watching = False

    def allowed(self) -> float | None:
        """Seconds after which a step is late; None until the usual time is known."""
        if len(self._recent) < 5:
            return None
        return max(FACTOR * statistics.median(self._recent), self._least)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        said = None
        while not self._closed.wait(min(1.0, self._least / 4)):
            step, silent, allowed = self._step, time.monotonic() - self._since, self.allowed()
            if self._watching and allowed and silent > allowed and said != step:
                said = step
                print(
                    f"\nwarning: {self._name}: step {step} has taken {silent:.0f} s so far, where a step usually takes "
                    f"{statistics.median(self._recent):.2g} s. If it does not go on: a data source, another process or a "
                    "device may hang; end it, and the same command resumes from the last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
