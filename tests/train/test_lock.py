"""Two runs in one folder: the second is refused, a dead one holds nothing."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from binlatent.errors import UserError
from binlatent.train.lock import lock

HOLD = """
import sys, time
from binlatent.train.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""


def test_the_holder_is_named_and_a_killed_one_holds_nothing(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        named = f"in use by process {other.pid} on host {socket.gethostname()}"
        with pytest.raises(UserError, match=named), lock(tmp_path):
            raise AssertionError("two processes hold one folder")
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()
    with lock(tmp_path):  # and again, after an orderly end
        pass
