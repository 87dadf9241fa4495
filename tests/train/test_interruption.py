"""What ends a run from outside: SIGTERM, a full disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from binlatent.checkpoint import checkpoint_steps
from binlatent.train.metrics import read_records
from tests import tiny

ROOT = Path(__file__).parents[2]

# The second checkpoint meets a limit of the size of files, which the writing library sees as it would see a full disk.
FULL = """
import resource
import sys
from binlatent.cli import main as cli
from binlatent.checkpoint import Checkpoints

save = Checkpoints.save

def limited(self, step, *args):
    if step > 2:
        self.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    save(self, step, *args)

Checkpoints.save = limited
cli.main(sys.argv[1:])
"""


def command(folder, program, more=(), **numbers):
    """Trains the tiny autoencoder with a program; `numbers` are of its training section."""
    config = folder / "tiny_config.py"
    config.write_text(f"from tests import tiny\ndef get_config():\n    return tiny.config({tiny.npz(folder)!r})\n")
    args = ["train", "--stage", "autoencoder", "--config", config, "--workdir", folder / "run"]
    args += [f"--config.autoencoder_training.{name}={value}" for name, value in numbers.items()]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args), *more],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_within_a_step(tmp_path, number, status):
    far = dict.fromkeys(("num_steps", "evaluate_every", "checkpoint_every"), 1_000_000)
    process = command(tmp_path, ["-m", "binlatent.cli.main"], log_every=1, **far)
    folder, end = tmp_path / "run/autoencoder", time.monotonic() + 300
    while len(read_records(folder)) < 5 and time.monotonic() < end:
        time.sleep(0.02)
    seen = read_records(folder)[-1]["step"]
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == status and "Traceback" not in error, error[-2000:]
    (saved,) = checkpoint_steps(folder / "checkpoints")
    assert f"stopped at step {saved} as requested; its state is saved, run again to resume" in out
    logged = read_records(folder)[-1]["step"]
    # records are written one step late, and a few steps pass while the signal is on its way
    assert seen <= logged <= saved <= logged + 2


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused(tmp_path):
    far = dict.fromkeys(("num_steps", "evaluate_every", "checkpoint_every"), 1_000_000)
    first = command(tmp_path, ["-m", "binlatent.cli.main"], log_every=1, **far)
    end = time.monotonic() + 300
    while len(read_records(tmp_path / "run/autoencoder")) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    second = command(tmp_path, ["-m", "binlatent.cli.main"], log_every=1, **far)
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2 and f"in use by process {first.pid}" in error, error[-2000:]
    first.send_signal(signal.SIGINT)
    time.sleep(0.001)
    first.send_signal(signal.SIGINT)  # the second one does not wait for anything
    first.wait(timeout=60)
    assert first.returncode in (-signal.SIGINT, 130)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_last_good_checkpoint_kept(tmp_path):
    process = command(tmp_path, ["-c", FULL], num_steps=6, checkpoint_every=2, evaluate_every=6)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error[-2000:]
    assert "a checkpoint could not be written" in error and "Checkpoints on disk: [2]" in error, error[-2000:]
    process = command(tmp_path, ["-m", "binlatent.cli.main"], num_steps=6, checkpoint_every=2, evaluate_every=6)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-2000:]
    assert [r["step"] for r in read_records(tmp_path / "run/autoencoder") if "train/loss" in r] == [2, 4, 6]
    assert max(checkpoint_steps(tmp_path / "run/autoencoder/checkpoints")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["1:2", "2:99"])
def test_chosen_steps_are_traced(tmp_path, steps):
    """The second trace is cut short by the end of the run, and is written all the same."""
    numbers = {"num_steps": 4, "checkpoint_every": 4, "evaluate_every": 4}
    process = command(tmp_path, ["-m", "binlatent.cli.main"], ["--profile", steps], **numbers)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-2000:]
    (trace,) = (tmp_path / "run/autoencoder/profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
