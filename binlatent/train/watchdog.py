"""Warns when a step takes far longer than usual, as a hanging run is otherwise silent."""

import collections
import statistics
import sys
import threading
import time

FACTOR = 10  # times the usual duration of a step
LEAST_SECONDS = 60.0  # shorter silences never cause a warning


class Watchdog:
    """Watches the time between beats in a separate thread.

    Args:
      name: of the stage, for the message.
      least_seconds: silence of this length is always allowed.
    """

    def __init__(self, name: str, *, least_seconds: float = LEAST_SECONDS):
        self._name, self._least = name, least_seconds
        self._recent: collections.deque[float] = collections.deque(maxlen=50)
        self._step, self._since, self._watching = 0, time.monotonic(), False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, step: int) -> None:
        """Call this when a step begins; the time since the last beat is a step's duration, unless there was a pause."""
        now = time.monotonic()
        if self._watching:
            self._recent.append(now - self._since)
        self._step, self._since, self._watching = step, now, True

    def pause(self) -> None:
        """Call this before evaluation or saving; the next beat resumes."""
        self._watching = False

    def allowed(self) -> float | None:
        """Seconds after which a step is late; None until the usual duration is known."""
        if len(self._recent) < 5:
            return None
        return max(FACTOR * statistics.median(self._recent), self._least)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        warned_step = None
        while not self._closed.wait(min(1.0, self._least / 4)):
            step, silent, allowed = self._step, time.monotonic() - self._since, self.allowed()
            if self._watching and allowed and silent > allowed and warned_step != step:
                warned_step = step
                print(
                    f"\nwarning: {self._name}: step {step} has taken {silent:.0f} s so far; steps usually take "
                    f"{statistics.median(self._recent):.2g} s. A data source, another process or a device may hang. If "
                    "so, stop the run; the same command resumes from the last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
