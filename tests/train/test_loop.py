"""The loop by equality: resumed = uninterrupted, eight devices = one."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent.checkpoint import Checkpoints, checkpoint_steps, load_ema
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.train import loop
from binlatent.train.metrics import read_records
from binlatent.train.preemption import Preempted
from tests import tiny
from tests.processes import ROOT


def state_of(workdir, stage):
    """Every array of the last checkpoint, by path."""
    import orbax.checkpoint as ocp

    folder = workdir / stage / "checkpoints"
    step = checkpoint_steps(folder)[-1]
    with ocp.PyTreeCheckpointer() as reader:
        meta = reader.metadata(folder / str(step) / "state").item_metadata
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(meta.tree))
        state = reader.restore(folder / str(step) / "state", restore_args=args)
    return step, jax.tree_util.tree_leaves_with_path(state)


def assert_equal(a, b):
    assert a[0] == b[0]
    assert len(a[1]) == len(b[1]) > 20
    for (path, x), (_, y) in zip(a[1], b[1], strict=True):
        assert np.array_equal(x, y), path


# Ends itself by SIGKILL as soon as the save of a step of a stage has begun: whether it is finished by then is chance.
CHILD = """
import os, signal, sys
from binlatent import config
from binlatent.checkpoint import Checkpoints
from binlatent.experiment import Experiment
workdir, config_path, stage, last = sys.argv[1:]
save = Checkpoints.save

def save_and_end(self, step, *args):
    save(self, step, *args)
    if step == int(last) and self.folder.parent.name == stage:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_end
experiment = Experiment.open(workdir, config.read(config_path))
experiment.run()
if stage == "student" or experiment.step("student"):
    experiment.train("student")
"""


def run(workdir, config_path, stage="", last=0):
    """The exit status and the output of a run in a process of its own."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(workdir), str(config_path), stage, str(last)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    return result.returncode, result.stdout[-2000:]


@pytest.mark.parametrize("stage", [pytest.param("autoencoder", marks=pytest.mark.slow), "prior", "student"])
def test_killed_and_resumed_ends_bit_equal(tmp_path, trained, stage):
    """SIGKILL while a checkpoint in the middle of a stage is saved; the second run ends as the uninterrupted one did."""
    stages, workdir = ("autoencoder", "prior"), tmp_path / "run"
    if stage == "student":  # which is not part of a run
        stages = (*stages, stage)
        trained = shutil.copytree(trained, tmp_path / "whole")
        Experiment.open(trained).train("student")
        shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("student"))
    config_path = trained / "config.json"
    status, output = run(workdir, config_path, stage, last=4)
    assert status == -signal.SIGKILL, output
    assert checkpoint_steps(workdir / stage / "checkpoints") in ([2], [2, 4])
    status, output = run(workdir, config_path)
    assert status == 0, output
    for name in stages:
        assert_equal(state_of(workdir, name), state_of(trained, name))
        old, new = (read_records(w / name) for w in (trained, workdir))
        assert [r["step"] for r in old] == [r["step"] for r in new]
        for a, b in zip(old, new, strict=True):
            assert {k: v for k, v in a.items() if "loss" in k} == {k: v for k, v in b.items() if "loss" in k}


def test_one_device_and_eight_give_equal_losses_and_codes(tmp_path, trained, monkeypatch):
    """The fixture trained over the 8 devices of the suite; here the same run on the first of them."""
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *a: one)
    monkeypatch.setattr(jax, "local_devices", lambda *a, **k: one)
    experiment = Experiment.open(tmp_path / "one", config_lib.read(trained / "config.json"))
    experiment.run()
    for stage in ("autoencoder", "prior"):
        old, new = (read_records(w / stage) for w in (trained, experiment.workdir))
        for a, b in zip(old, new, strict=True):
            for name in (n for n in a if n.endswith("/loss")):
                np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=f"{stage} step {a['step']} {name}")
    manifests = [json.loads((w / "codes" / "manifest.json").read_text()) for w in (trained, experiment.workdir)]
    hashes = [{s["records"]["sha256"] for part in m["shards"].values() for s in part} for m in manifests]
    assert hashes[0] == hashes[1]


def test_more_steps_go_on_from_the_last_checkpoint(tmp_path):
    path = tiny.npz(tmp_path)
    Experiment.open(tmp_path / "a", tiny.config(path)).train("autoencoder")
    Experiment.open(tmp_path / "a", tiny.config(path, autoencoder_training__num_steps=8)).train("autoencoder")
    Experiment.open(tmp_path / "b", tiny.config(path, autoencoder_training__num_steps=8)).train("autoencoder")
    assert_equal(state_of(tmp_path / "a", "autoencoder"), state_of(tmp_path / "b", "autoencoder"))


def test_several_steps_a_call_equal_one(tmp_path):
    path = tiny.npz(tmp_path)
    one = tiny.config(path, autoencoder_training__log_every=1)
    several = tiny.config(
        path,
        autoencoder_training__log_every=1,
        autoencoder_training__steps_per_call=2,
        autoencoder_training__evaluate_every=2,
    )
    losses = []
    for name, config in (("one", one), ("several", several)):
        Experiment.open(tmp_path / name, config).train("autoencoder")
        records = read_records(tmp_path / name / "autoencoder")
        losses.append({r["step"]: r["train/loss"] for r in records if "train/loss" in r})
    assert list(losses[0]) == list(losses[1]) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(losses[0].values()), list(losses[1].values()), atol=1e-5)
    other = tiny.config(path, autoencoder_training__num_steps=8, autoencoder_training__steps_per_call=4,
                        autoencoder_training__evaluate_every=4, autoencoder_training__checkpoint_every=4)  # fmt: skip
    with pytest.raises(UserError, match="is of step 6, which is no multiple of steps_per_call 4"):
        Experiment.open(tmp_path / "several", other).train("autoencoder")
    with pytest.raises(UserError, match="evaluate_every is 3: a multiple of steps_per_call 2 is expected"):
        Experiment.open(tmp_path / "c", tiny.config(path, autoencoder_training__steps_per_call=2))


def test_a_work_directory_of_before_a_key_was_there_opens(tmp_path, monkeypatch):
    config = tiny.config(tiny.npz(tmp_path))
    Experiment.open(tmp_path / "run", config).save_config()
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    del values["prior"]["remat"], values["codes"]
    values["sampling"]["time_power"] = 1.0  # a key of earlier versions
    path.write_text(json.dumps(values))
    assert config_lib.to_json(Experiment.open(tmp_path / "run").config) == config_lib.to_json(config)
    Experiment.open(tmp_path / "run", config)
    path.write_text(json.dumps(values))
    config.prior.remat = "full"
    monkeypatch.setattr(Experiment, "step", lambda self, stage: 6)  # both stages have a checkpoint
    with pytest.raises(UserError, match="remat: 'none' in the work directory, 'full' requested"):
        Experiment.open(tmp_path / "run", config)


@pytest.mark.parametrize("place", ["evaluate", "wait"])
def test_a_request_during_the_last_evaluation_or_save_ends_the_run(tmp_path, monkeypatch, place):
    """Rather than being forgotten, so that the next stage begins."""
    target = loop if place == "evaluate" else Checkpoints
    last = getattr(target, place)
    monkeypatch.setattr(target, place, lambda *args: signal.raise_signal(signal.SIGTERM) or last(*args))
    every = {f"autoencoder_training__{name}": 2 for name in ("num_steps", "evaluate_every", "checkpoint_every")}
    with pytest.raises(Preempted, match="autoencoder: stopped at step 2 as requested; its state is saved"):
        Experiment.open(tmp_path / "run", tiny.config(tiny.npz(tmp_path), **every)).run()
    assert checkpoint_steps(tmp_path / "run/autoencoder/checkpoints") == [2]


def test_a_nonfinite_loss_stops_with_the_state_kept(tmp_path):
    config = tiny.config(
        tiny.npz(tmp_path), autoencoder_optimizer__learning_rate=1e30, autoencoder_optimizer__clip_norm=0.0
    )
    with pytest.raises(UserError, match="not finite at step"):
        Experiment.open(tmp_path / "run", config).train("autoencoder")
    _, params, _ = load_ema(tmp_path / "run" / "autoencoder" / "checkpoints")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_a_nonfinite_step_is_counted_and_leaves_the_state_as_it_was(tmp_path):
    config = tiny.config(
        tiny.npz(tmp_path),
        autoencoder_optimizer__learning_rate=1e30,
        autoencoder_optimizer__clip_norm=0.0,
    )
    stage = config_lib.build_autoencoder_stage(config)
    state = stage.init(jax.random.key(0), None)
    batch = {"image": tiny.images(8)}
    for i in range(3):
        state, metrics = jax.jit(stage.train_step)(state, batch, jax.random.key(i))
    assert int(state.step) == 3
    assert int(metrics["skipped"]) == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_another_seed_does_not_go_on_in_the_same_place(tmp_path):
    path = tiny.npz(tmp_path)
    Experiment.open(tmp_path / "run", tiny.config(path, autoencoder_training__num_steps=2)).train("autoencoder")
    with pytest.raises(UserError, match=r"seed: 0 in the work directory, 1 requested"):
        Experiment.open(tmp_path / "run", tiny.config(path, seed=1))
