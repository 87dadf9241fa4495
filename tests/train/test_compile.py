"""Which program a call runs: before the discriminator's start one without it, with the same states."""

from unittest import mock

import jax
import numpy as np
import pytest

from binlatent.experiment import Experiment
from binlatent.mesh import MeshShape
from binlatent.train import loop
from binlatent.train.adversarial import Adversarial
from binlatent.train.autoencoder import AutoencoderStage
from binlatent.train.compile import StagePrograms, keep_programs
from binlatent.train.metrics import read_records
from binlatent.train.preemption import Preempted
from tests import tiny
from tests.train.test_autoencoder import SMALL_DISCRIMINATOR, batch_of, stage_of
from tests.train.test_loop import assert_equal, state_of


def programs(start_step, steps_per_call=1):
    stage = stage_of(adversarial=Adversarial(), start_step=start_step)
    shapes = jax.eval_shape(batch_of)
    return StagePrograms(stage, MeshShape().build(jax.devices()[:1]), shapes, steps_per_call=steps_per_call)


def test_a_call_is_early_where_all_its_steps_are(monkeypatch):
    without = []

    def lower(self, stage):
        without.append(stage.discriminator is None)
        lowered = mock.create_autospec(jax.stages.Lowered, instance=True)
        lowered.compile.return_value = object.__new__(jax.stages.Compiled)
        return lowered

    monkeypatch.setattr(StagePrograms, "_lower", lower)
    several = programs(start_step=5, steps_per_call=2)
    found = [several.train_steps_from(step) for step in (0, 2, 4, 6)]
    assert [each is several.train_steps for each in found] == [False, False, True, True]
    assert found[0] is found[1] and without == [True, False]
    always = programs(start_step=0)
    assert always.train_steps_from(0) is always.train_steps
    assert programs(start_step=2).train_steps_from(1) is not always.train_steps


def test_operations_are_those_of_the_step():
    found = programs(start_step=5)
    whole = found.step_flops()
    assert found.step_flops(4) < 0.8 * whole
    assert found.step_flops(5) == whole == programs(start_step=0).step_flops(0)


@pytest.mark.slow
def test_the_discriminator_begins_at_its_start_also_in_a_resumed_run(tmp_path, monkeypatch):
    """The states are those of one program for all steps, up to rounding; a resumed run's are equal to the bit."""
    config = tiny.config(
        tiny.npz(tmp_path), **SMALL_DISCRIMINATOR, autoencoder_loss__adversarial__start_step=3,
        autoencoder_training__log_every=1, discriminator_optimizer__learning_rate=1e-3,
    )  # fmt: skip

    def run(name):
        Experiment.open(tmp_path / name, config).train("autoencoder")

    def losses(name):
        records = read_records(tmp_path / name / "autoencoder")
        return {r["step"]: r["train/loss"] for r in records if "train/loss" in r}

    run("whole")
    asked = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "asked", lambda self: next(asked))
        with pytest.raises(Preempted):
            run("resumed")
    run("resumed")
    assert_equal(state_of(tmp_path / "whole", "autoencoder"), state_of(tmp_path / "resumed", "autoencoder"))
    records = [r for r in read_records(tmp_path / "whole" / "autoencoder") if "train/loss" in r]
    assert [r["step"] for r in records if "train/adversarial" in r] == [4, 5, 6]

    monkeypatch.setattr(AutoencoderStage, "complete_from", 0)
    run("one program")
    assert losses("whole").keys() == losses("one program").keys()
    np.testing.assert_allclose([*losses("whole").values()], [*losses("one program").values()], rtol=1e-5)
    (_, a), (_, b) = (state_of(tmp_path / name, "autoencoder") for name in ("whole", "one program"))
    for (path, x), (_, y) in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4, err_msg=str(path))


@pytest.mark.parametrize(
    ("platform", "own", "kept"), [("tpu", False, True), ("cpu", False, False), ("gpu", True, False)]
)
def test_programs_are_kept_where_compiling_takes_long(monkeypatch, platform, own, kept):
    changed = []
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax.config, "update", lambda *values: changed.append(values))
    if not own:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep_programs("bucket")
    assert changed == [("jax_compilation_cache_dir", "bucket")] * kept
