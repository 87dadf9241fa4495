"""Where the wall time of a run goes."""

import array
import contextlib
import time
from collections.abc import Iterator

import numpy as np

# What a run is doing. `start` opens data and restores or makes the state, `input` waits for a batch.
KINDS = ("start", "compile", "steps", "input", "evaluation", "checkpoint")


class Goodput:
    """The seconds of a run by kind of work, and the times of its steps.

    Every moment since the start counts once. Work that the device or another thread does at the same time, such as
    reading the next batch or writing a checkpoint, counts only while the run waits for it.
    """

    def __init__(self):
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._kind, self._since = "start", time.perf_counter()
        self._steps = array.array("d")
        self._last: float | None = None  # seconds of `steps` and `input` at the end of the last step

    def enter(self, kind: str) -> str:
        """Counts the time from now on as `kind`; returns the kind until now."""
        now, before = time.perf_counter(), self._kind
        self._seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Counts the time within as `kind`."""
        before = self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def stepped(self, num: int) -> None:
        """Counts `num` more steps as done, all after the last call of this or of `restart`."""
        self.enter(self._kind)
        done = self._seconds["steps"] + self._seconds["input"]
        if self._last is not None:
            self._steps.append((done - self._last) / num)
        self._last = done

    def restart(self) -> None:
        """Leaves the next step out of the times of steps, since part of it is not seen."""
        self._last = None

    def values(self) -> dict[str, float]:
        """`total_seconds`; `goodput`, the share of it spent on steps; the shares of the other kinds; `step_p50` and
        `step_p99`, percentiles of the seconds of a step with its wait for input, if there were steps."""
        self.enter(self._kind)
        total = sum(self._seconds.values())
        found = {"total_seconds": total, "goodput": self._seconds["steps"] / max(total, 1e-9)}
        found |= {kind: self._seconds[kind] / max(total, 1e-9) for kind in KINDS if kind != "steps"}
        if self._steps:
            p50, p99 = np.percentile(np.asarray(self._steps), (50, 99))
            found |= {"step_p50": float(p50), "step_p99": float(p99)}
        return found

    def summary(self) -> str:
        """The values in one line."""
        return summary(self.values())


def summary(values: dict[str, float]) -> str:
    """One line of what `Goodput.values` returns."""
    shares = {"steps": values["goodput"]} | {kind: values[kind] for kind in KINDS if kind != "steps"}
    text = f"{values['total_seconds']:.0f} s: " + ", ".join(f"{share:.1%} {kind}" for kind, share in shares.items())
    if "step_p50" in values:
        text += f"; a step took {values['step_p50']:.3g} s (median), {values['step_p99']:.3g} s (99th percentile)"
    return text
