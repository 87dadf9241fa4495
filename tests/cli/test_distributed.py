"""Two processes over loopback, two virtual devices each, through the command line: equal to one process of four.

The model is conditioned on classes and captions."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from binlatent.checkpoint import checkpoint_steps
from binlatent.data.manifest import Manifest
from binlatent.train.metrics import read_records
from tests import tiny
from tests.processes import ROOT, finish, start

LIMIT = 400  # seconds until something counts as hung

CONFIG = """
from tests import tiny

def get_config():
    c = tiny.config({path!r}, data__captions="captions", prior__text_depth=1)
    for training in (c.autoencoder_training, c.prior_training):
        training.update(num_steps=4, log_every=1, checkpoint_every=2, evaluate_every=4, keep_checkpoints=4)
    return c
"""


def run(*args, devices, processes=1):
    results = finish(start(args, devices=devices, processes=processes), LIMIT)
    for status, out in results:
        assert status == 0, out[-3000:]
    return [out for _, out in results]


def losses(workdir, stage):
    return {r["step"]: r["train/loss"] for r in read_records(workdir / stage) if "train/loss" in r}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    arrays = dict(np.load(tiny.npz(folder)))  # with classes, and captions for the text tower
    captions = np.array([f"a {('red', 'green', 'blue')[label]} square" for label in arrays["labels"]])
    np.savez(folder / "captioned.npz", **arrays, captions=captions)
    path = folder / "tiny.py"
    path.write_text(CONFIG.format(path=str(folder / "captioned.npz")))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, config):
    """Work directories of both stages, by two processes of two devices and by one of four, and what the two printed."""
    folder = tmp_path_factory.mktemp("runs")
    printed = run("run", "--config", config, "--workdir", folder / "two", devices=2, processes=2)
    run("run", "--config", config, "--workdir", folder / "one", devices=4)
    return folder, printed


@pytest.mark.slow
def test_two_processes_equal_one(runs):
    folder, printed = runs
    for stage in ("autoencoder", "prior"):
        two, one = losses(folder / "two", stage), losses(folder / "one", stage)
        assert list(two) == list(one) == [1, 2, 3, 4]
        np.testing.assert_allclose(list(two.values()), list(one.values()), atol=1e-5)
    codes = [Manifest.load(folder / name / "codes") for name in ("two", "one")]
    assert [s.count for s in codes[0].shards["train"]] == [s.count for s in codes[1].shards["train"]]
    assert (folder / "two/samples/samples.png").stat().st_size > 0
    assert "samples:" in printed[0] and "samples:" not in printed[1]  # only process 0 speaks


@pytest.mark.slow
def test_a_student_by_two_processes_equals_one(runs, tmp_path):
    """Sharded over the processes, and with the input of guidance, whose parameters the prior does not have."""
    found = []
    for name, shape in (("two", {"devices": 2, "processes": 2}), ("one", {"devices": 4})):
        shutil.copytree(runs[0] / "one", tmp_path / name)
        changes = ("student.guidance=2.0", "mesh.fsdp=4", "student_training.num_steps=3")
        changes = (f"--config.{change}" for change in changes)
        run("train", "--stage", "student", "--workdir", tmp_path / name, *changes, **shape)
        found.append(losses(tmp_path / name, "student"))
    assert list(found[0]) == list(found[1]) == [1, 2, 3]
    np.testing.assert_allclose(list(found[0].values()), list(found[1].values()), atol=1e-5)


@pytest.mark.slow
def test_checkpoints_restore_on_other_numbers_of_processes_and_devices(runs, config, tmp_path):
    """Two more steps: of the one process's run by two, and of the two processes' run by one device."""
    folder, _ = runs
    for name in ("two", "one"):
        shutil.copytree(folder / name, tmp_path / name)
    args = ["train", "--stage", "prior", "--config", config, "--config.prior_training.num_steps=6"]
    run(*args, "--workdir", tmp_path / "one", devices=2, processes=2)
    run(*args, "--workdir", tmp_path / "two", devices=1)
    by_two, by_one = losses(tmp_path / "one", "prior"), losses(tmp_path / "two", "prior")
    assert list(by_two) == list(by_one) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(by_two.values()), list(by_one.values()), atol=1e-5)


@pytest.mark.slow
def test_a_part_that_one_process_cannot_read(config, tmp_path):
    """All processes take the checkpoint before, and none waits for another."""
    args = ["train", "--stage", "autoencoder", "--config", config, "--workdir", tmp_path]
    args += ["--config.mesh.data=1", "--config.mesh.fsdp=-1"]
    run(*args, devices=2, processes=2)
    folder = tmp_path / "autoencoder/checkpoints"
    for path in (folder / "4/state/ocdbt.process_1/d").iterdir():
        path.write_bytes(b"")
    printed = run(*args, devices=2, processes=2)
    assert "process 1 cannot read its part" in printed[0]
    assert checkpoint_steps(folder) == [2, 4] and (folder / "4.broken").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_ends_the_other_and_a_restart_resumes(config, tmp_path, victim):
    args = ["train", "--stage", "autoencoder", "--config", config, "--workdir", tmp_path]
    endless = [f"--config.autoencoder_training.{key}=1000000" for key in ("num_steps", "evaluate_every")]
    started = start([*args, *endless], devices=2, processes=2)
    folder, end = tmp_path / "autoencoder/checkpoints", time.monotonic() + LIMIT
    while not checkpoint_steps(folder) and time.monotonic() < end:
        time.sleep(0.2)
    started[victim].send_signal(signal.SIGKILL)
    results = finish(started, LIMIT)
    status, out = results[1 - victim]
    assert status not in (0, None)
    # by JAX's own watch, or where a collective fails first by ours
    assert "another task died" in out or "The other processes end too" in out, out[-2000:]
    last = max(checkpoint_steps(folder))
    run(*args, f"--config.autoencoder_training.num_steps={last + 2}", devices=2, processes=2)
    assert max(checkpoint_steps(folder)) == last + 2


@pytest.mark.slow
@pytest.mark.parametrize(("steps_per_call", "checkpoint_every"), [(1, 1_000_000), (2, 1_000_000), (2, 4)])
def test_sigterm_saves_on_every_process(config, tmp_path, steps_per_call, checkpoint_every):
    """After SIGTERM to one process, all save the same step and exit normally, also between regular checkpoints."""
    args = ["train", "--stage", "autoencoder", "--config", config, "--workdir", tmp_path]
    numbers = {"num_steps": 1_000_000, "evaluate_every": 1_000_000, "checkpoint_every": checkpoint_every}
    numbers |= {"steps_per_call": steps_per_call}
    endless = [f"--config.autoencoder_training.{key}={value}" for key, value in numbers.items()]
    started = start([*args, *endless], devices=2, processes=2)
    end = time.monotonic() + LIMIT
    while len(losses(tmp_path, "autoencoder")) < 3 and time.monotonic() < end:
        time.sleep(0.2)
    started[0].send_signal(signal.SIGTERM)
    results = finish(started, LIMIT)
    assert [status for status, _ in results] == [0, 0], results[0][1][-2000:] + results[1][1][-2000:]
    steps = checkpoint_steps(tmp_path / "autoencoder/checkpoints")
    assert len(steps) == 1 or checkpoint_every == 4
    assert f"stopped at step {steps[-1]} as requested; its state is saved, run again to resume" in results[0][1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--distributed"], "detects no TPU pod, SLURM or Open MPI job"),
        (["--coordinator", "127.0.0.1:1234"], "--num_processes and --process_id missing"),
        (["--coordinator", "nowhere", "--num_processes", "2", "--process_id", "0"], "HOST:PORT is expected"),
        (["--coordinator", "a:1", "--num_processes", "2", "--process_id", "2"], "a number from 0 to 1 is expected"),
    ],
)
def test_an_impossible_start_is_reported(config, tmp_path, args, message):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI"))} | {"JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-m",
        "binlatent.cli.main",
        "run",
        "--config",
        config,
        "--workdir",
        tmp_path / "w",
        *args,
    ]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, cwd=ROOT, env=env)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "w").exists()
