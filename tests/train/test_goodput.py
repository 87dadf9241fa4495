"""The clock of a run, with a clock that the test sets."""

import pytest

from binlatent.train import goodput
from binlatent.train.goodput import Goodput, summary


@pytest.fixture
def now(monkeypatch):
    """The time, in a list so that a test can change it."""
    time = [100.0]
    monkeypatch.setattr(goodput.time, "perf_counter", lambda: time[0])
    return time


def test_every_moment_counts_once(now):
    clock = Goodput()
    now[0] += 2  # start
    with clock.during("compile"):
        now[0] += 3
    clock.enter("steps")
    now[0] += 10
    with pytest.raises(RuntimeError), clock.during("evaluation"):
        now[0] += 4
        raise RuntimeError
    with clock.during("input"):
        now[0] += 1
    values = clock.values()
    assert values["total_seconds"] == 20 and values["goodput"] == 0.5
    shares = {"start": 0.1, "compile": 0.15, "input": 0.05, "evaluation": 0.2, "checkpoint": 0.0}
    assert {kind: values[kind] for kind in shares} == pytest.approx(shares)
    assert "step_p50" not in values
    assert clock.summary().startswith("20 s: 50.0% steps, 10.0% start, 15.0% compile, 5.0% input, 20.0% evaluation")


def test_times_of_steps_hold_the_wait_for_input_and_nothing_else(now):
    clock = Goodput()
    clock.enter("steps")
    clock.stepped(2)  # from here
    for seconds in (2, 2, 6):
        with clock.during("input"):
            now[0] += seconds / 2
        now[0] += seconds / 2
        with clock.during("checkpoint"):
            now[0] += 50
        clock.stepped(2)
    clock.restart()
    now[0] += 1000  # a step of which not all is seen
    clock.stepped(2)
    values = clock.values()
    assert values["step_p50"] == 1 and values["step_p99"] == pytest.approx(2.96)
    assert "a step took 1 s (median), 2.96 s (99th percentile)" in summary(values)
