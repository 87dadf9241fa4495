import signal

import jax
import pytest
from jax.experimental import multihost_utils

from binlatent.train.preemption import StopRequest


def test_calls_are_counted_over_the_stages_of_a_process(monkeypatch):
    """Several processes agree on a call of theirs: were the count to start again, that call might be long in coming."""
    counted = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda call: bool(counted.append(call)))
    for _ in range(2):
        stop = StopRequest()
        assert not stop.asked() and not stop.asked()
        stop.close()
    assert counted == list(range(counted[0], counted[0] + 4))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_and_a_second_ctrl_c_ends_the_process(number):
    before = signal.getsignal(number)
    stop = StopRequest()
    assert not stop.asked()
    signal.raise_signal(number)
    assert stop.asked() and stop.interrupted == (number == signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT) == signal.SIG_DFL) == (number == signal.SIGINT)
    stop.close()
    assert signal.getsignal(number) == before
