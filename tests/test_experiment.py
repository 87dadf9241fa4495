"""A work directory: what may change in it, what is checked before training, and that a finished one is only read."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from binlatent import config as config_lib
from binlatent.checkpoint import load_ema
from binlatent.cli.info import describe
from binlatent.config.changes import is_fixed
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.train.lock import lock
from tests import tiny
from tests.train.test_loop import assert_equal, state_of


@pytest.fixture
def one_device(monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *a: one)
    monkeypatch.setattr(jax, "local_devices", lambda *a, **k: one)


@pytest.mark.parametrize(
    ("key", "trained", "fixed"),
    [
        ("autoencoder.channels", (), False),
        ("autoencoder.channels", ("autoencoder",), True),
        ("autoencoder_training.batch_size", ("autoencoder",), True),
        ("autoencoder_training.num_steps", ("autoencoder",), False),
        ("discriminator_loss.weight", ("autoencoder",), True),
        ("codes.flips", ("autoencoder",), False),
        ("codes.views", ("autoencoder", "prior"), True),
        ("codes.views", ("autoencoder", "decoder"), True),
        ("autoencoder.channels", ("decoder",), True),
        ("decoder_loss.l1.weight", ("autoencoder", "prior"), False),
        ("decoder.flip_rate", ("decoder",), True),
        ("decoder_training.num_steps", ("decoder",), False),
        ("prior.width", ("autoencoder", "decoder"), False),
        ("data.labels", ("autoencoder",), True),
        ("data.path", ("autoencoder", "prior"), False),
        ("seed", (), False),
        ("seed", ("prior",), True),
        ("prior.width", ("autoencoder",), False),
        ("prior.width", ("autoencoder", "prior"), True),
        ("prior_training.batch_size", ("autoencoder",), False),
        ("prior_training.batch_size", ("prior",), True),
        ("prior_optimizer.warmup_steps", ("prior",), True),
        ("prior_optimizer.learning_rate", ("autoencoder", "prior"), False),
    ],
)
def test_keys_are_fixed_by_the_checkpoints_that_depend_on_them(key, trained, fixed):
    assert is_fixed(key, trained) == fixed


def test_a_discriminator_that_the_autoencoder_does_not_have_is_the_decoder_s():
    assert not is_fixed("discriminator.channels", ("autoencoder", "prior"), discriminator=False)
    assert is_fixed("discriminator.channels", ("autoencoder", "decoder"), discriminator=False)


def test_a_stage_without_a_checkpoint_takes_another_config(tmp_path, trained, capsys):
    """The fixture's two stages are trained; without the prior's checkpoints its keys are free, the autoencoder's not."""
    workdir = tmp_path / "run"
    (workdir / "prior").mkdir(parents=True)
    os.symlink(trained / "autoencoder", workdir / "autoencoder")
    (workdir / "config.json").write_bytes((trained / "config.json").read_bytes())
    old = config_lib.read(workdir / "config.json")
    new = config_lib.override(old, ["prior_training.batch_size=16", "autoencoder_optimizer.learning_rate=0.001"])
    Experiment.open(workdir, new)
    assert config_lib.read(workdir / "config.json").prior_training.batch_size == 16
    assert "autoencoder_optimizer.learning_rate changes from 0.01 to 0.001" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"autoencoder_training\.batch_size: 8 in the work directory, 16 requested"):
        Experiment.open(workdir, config_lib.override(old, ["autoencoder_training.batch_size=16"]))


def test_a_prior_is_trained_only_on_the_codes_that_the_config_describes(tmp_path, trained):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("prior"))
    config = config_lib.override(config_lib.read(workdir / "config.json"), ["codes.views=3"])
    experiment = Experiment.open(workdir, config)
    with pytest.raises(UserError, match=r"made with codes\.views=1, but the config says 3; run `binlatent encode`"):
        experiment.train("prior")
    experiment.encode()
    assert "3 codes of each image" in describe(workdir)
    experiment.train("prior")
    assert experiment.done("prior")
    with pytest.raises(UserError, match=r"codes\.views: 3 in the work directory, 2 requested"):
        Experiment.open(workdir, config_lib.override(config, ["codes.views=2"]))


def test_the_learning_rate_can_be_lowered_on_the_way(tmp_path, capsys):
    """As the message of a loss that is not finite advises."""
    config = tiny.config(tiny.npz(tmp_path), autoencoder_training__num_steps=2)
    Experiment.open(tmp_path / "run", config).train("autoencoder")
    changes = ["autoencoder_training.num_steps=4", "autoencoder_optimizer.learning_rate=0.0"]
    experiment = Experiment.open(tmp_path / "run", config_lib.override(config, changes))
    assert "learning_rate changes from 0.01 to 0.0 at the next step" in capsys.readouterr().err
    before = load_ema(tmp_path / "run" / "autoencoder" / "checkpoints")
    experiment.train("autoencoder")
    assert experiment.step("autoencoder") == 4 and before[0] == 2


def test_a_missing_data_folder_leaves_no_work_directory(tmp_path):
    config = tiny.config(str(tmp_path / "nowhere.npz"))
    with pytest.raises(UserError, match="nowhere"):
        Experiment.open(tmp_path / "run", config).run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["autoencoder", "prior"])
def test_batch_sizes_of_both_stages_are_checked_before_anything_is_trained(tmp_path, stage):
    config = tiny.config(tiny.npz(tmp_path), **{f"{stage}_training__batch_size": 12})  # over 8 devices
    with pytest.raises(
        UserError, match=rf"{stage}_training.batch_size is 12: a multiple of 8 is expected.*micro_batches"
    ):
        Experiment.open(tmp_path / "run", config).run()
    assert not (tmp_path / "run").exists()


def test_fewer_examples_than_devices_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"there are \d training examples, and a batch has at least 8"):
        Experiment.open(tmp_path / "run", tiny.config(tiny.npz(tmp_path, 6))).run()
    assert not (tmp_path / "run").exists()


def test_a_small_set_gets_a_batch_size_that_fits_and_goes_on_with_it(tmp_path, one_device, capsys):
    config = tiny.config(tiny.npz(tmp_path, 20), autoencoder_training__batch_size=64, autoencoder_training__num_steps=2)
    Experiment.open(tmp_path / "run", config).train("autoencoder")
    _, _, metadata = load_ema(tmp_path / "run" / "autoencoder" / "checkpoints")
    count = metadata["batch_size"]
    assert 10 < count < 20
    assert f"batch size {count} instead of 64, for {count} examples" in capsys.readouterr().out
    config = config_lib.override(config, ["autoencoder_training.num_steps=4"])
    experiment = Experiment.open(tmp_path / "run", config)
    experiment.train("autoencoder")
    assert experiment.step("autoencoder") == 4


def test_stages_that_follow_each_other_read_a_checkpoint_once(trained, monkeypatch):
    read = []
    monkeypatch.setattr("binlatent.experiment.load_ema", lambda folder: read.append(folder) or load_ema(folder))
    experiment = Experiment.open(trained)
    experiment.train("autoencoder")
    experiment.encode()
    assert len(read) == 1


def test_a_checkpoint_that_is_written_anew_is_read_anew(tmp_path, one_device):
    config = tiny.config(tiny.npz(tmp_path))
    Experiment.open(tmp_path / "run", config).train("autoencoder")
    right = state_of(tmp_path / "run", "autoencoder")
    shutil.rmtree(tmp_path / "run" / "autoencoder" / "checkpoints" / "6" / "state")
    experiment = Experiment.open(tmp_path / "run")
    experiment.train("autoencoder")
    assert experiment._restore("autoencoder")[0] == 6 and experiment.done("autoencoder")
    assert_equal(state_of(tmp_path / "run", "autoencoder"), right)


def test_codes_that_a_prior_has_learned_stay(trained):
    config = config_lib.override(config_lib.read(trained / "config.json"), ["autoencoder_training.num_steps=8"])
    experiment = Experiment(workdir=epath.Path(trained), config=config)
    with pytest.raises(UserError, match=r"to 8 steps .*num_steps was 6\), but prior in .* learned the codes"):
        experiment.train("autoencoder")


def test_codes_of_an_unfinished_autoencoder(tmp_path, capsys, one_device):
    """They are warned of, and then stay what the prior has learned."""
    config = tiny.config(tiny.npz(tmp_path), autoencoder_training__num_steps=2)
    Experiment.open(tmp_path / "run", config).train("autoencoder")
    experiment = Experiment.open(tmp_path / "run", config_lib.override(config, ["autoencoder_training.num_steps=4"]))
    experiment.encode()
    assert "the autoencoder has 2 of 4 steps" in capsys.readouterr().err
    experiment.train("prior")
    with pytest.raises(
        UserError, match=r"the autoencoder would be trained to 4 steps .* prior in .* learned the codes"
    ):
        experiment.train("autoencoder")


def test_a_run_continues_only_with_its_data(tmp_path, one_device):
    images = tiny.npz(tmp_path)
    config = tiny.config(images, autoencoder_training__num_steps=2)
    Experiment.open(tmp_path / "run", config).train("autoencoder")
    np.savez(images, images=255 - tiny.images(48))
    longer = Experiment.open(tmp_path / "run", config_lib.override(config, ["autoencoder_training.num_steps=4"]))
    with pytest.raises(UserError, match=r"was made with another data set \(fingerprint \w+, now \w+\)"):
        longer.train("autoencoder")


def test_the_config_of_a_stage_that_is_trained_stays(tmp_path, trained):
    config = config_lib.read(trained / "config.json")
    workdir = tmp_path / "run"
    (workdir / "prior").mkdir(parents=True)
    shutil.copy(trained / "config.json", workdir / "config.json")
    other = config_lib.override(config, ["prior_objective.schedule=cosine"])
    with lock(workdir / "prior"), pytest.raises(UserError, match="is in use by process"):
        Experiment.open(workdir, other)
    assert config_lib.differences(config_lib.read(workdir / "config.json"), config) == {}
    Experiment.open(workdir, other)
    assert config_lib.read(workdir / "config.json").prior_objective.schedule == "cosine"


def test_a_finished_work_directory_is_read_and_not_written(trained, monkeypatch, capsys):
    """As on a read-only file system: every write raises."""

    def refused(path, *args, **kwargs):
        raise OSError(30, f"Read-only file system: '{path}'")

    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    for name in ("binlatent.config.files.write_atomic", "binlatent.data.manifest.write_atomic"):
        monkeypatch.setattr(name, refused)
    monkeypatch.setattr("binlatent.experiment.save_image", refused)
    experiment = Experiment.open(trained, config_lib.read(trained / "config.json"))
    experiment.run()
    said = capsys.readouterr()
    assert "autoencoder: done" in said.out and "codes: done" in said.out and "prior: done" in said.out
    assert "stay as they are" in said.err
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="cannot be written"):
        Experiment.open(trained, config_lib.override(experiment.config, ["sampling.steps=3"]))
    assert json.loads((trained / "config.json").read_text())["sampling"]["steps"] == experiment.config.sampling.steps
