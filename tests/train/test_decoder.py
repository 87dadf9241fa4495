"""Decoder fine-tuning: what it trains, and that codes and prior stay valid."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import binlatent
from binlatent import config as config_lib
from binlatent import prng
from binlatent.checkpoint import fingerprint, load_ema, load_parts
from binlatent.cli.info import describe
from binlatent.cli.main import main
from binlatent.data.codes import CodeSource
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.nets.autoencoder import BinaryAutoencoder, decoder_params
from binlatent.train.decoder import DecoderStage
from binlatent.train.optimizer import Optimizer
from binlatent.train.terms import Term
from tests import tiny

NET = BinaryAutoencoder(
    resolution=8, image_channels=1, patch_size=2, channels=32, channel_multipliers=(1,), res_blocks=1,
    attention_resolutions=(), code_bits=4, embedding_width=32,
)  # fmt: skip
LONGER = ["decoder_training.num_steps=24", "decoder_training.checkpoint_every=12", "decoder_loss.l1.weight=1.0"]


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """A copy of the trained work directory whose decoder was trained on."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    tiny.copy_of(trained, folder, *LONGER).train("decoder")
    return folder


def test_encoder_codes_and_prior_stay_and_the_decoder_changes(trained, tuned):
    before, after = binlatent.load(trained), binlatent.load(tuned)
    old, new = before.autoencoder.params, after.autoencoder.params
    assert set(old) == set(new)
    for name in old:
        assert (fingerprint(old[name]) == fingerprint(new[name])) == (name not in decoder_params(old)), name
    assert fingerprint(before.prior.params) == fingerprint(after.prior.params)
    images = tiny.images(16, seed=1)
    assert np.array_equal(before.encode(images), after.encode(images))
    asked = {"seed": 1, "num": 4, "steps": 2, "labels": [0]}
    a, b = next(before.sample_batches(**asked)), next(after.sample_batches(**asked))
    assert np.array_equal(a.codes, b.codes) and not np.allclose(a.images, b.images, atol=1e-3)


def test_it_reconstructs_better(trained, tuned):
    images = tiny.images(48)
    errors = [np.abs(binlatent.load(w).reconstruct(images) - images / 255).mean() for w in (trained, tuned)]
    assert errors[1] < 0.8 * errors[0], errors


def test_the_codes_of_the_work_directory_are_kept(tuned, capsys):
    experiment = Experiment.open(tuned)
    written = {path: path.stat().st_mtime_ns for path in (tuned / "codes").iterdir()}
    experiment.encode()
    assert "codes: done" in capsys.readouterr().out
    assert written == {path: path.stat().st_mtime_ns for path in (tuned / "codes").iterdir()}
    stage_1 = load_ema(tuned / "autoencoder" / "checkpoints")[1]["autoencoder"]
    CodeSource(experiment.codes, "train", expected_fingerprint=fingerprint(stage_1))


def test_a_pack_has_the_decoder_that_was_trained_on(tuned, tmp_path):
    main(["pack", "--workdir", str(tuned), "--out", str(tmp_path / "model.safetensors")])
    a, b = binlatent.load(tuned), binlatent.load(tmp_path / "model.safetensors")
    asked = {"seed": 3, "num": 4, "steps": 2, "labels": [0, 2]}
    assert np.array_equal(a.sample(**asked), b.sample(**asked))
    assert "its decoder trained on for 24 steps" in repr(b)


def test_info_and_repr_say_it(trained, tuned):
    assert "decoder" in describe(tuned) and "24 of 24 steps; parameters: decoder" in describe(tuned)
    assert "decoder" not in describe(trained)
    assert "its decoder trained on for 24 steps" in repr(binlatent.load(tuned))
    assert "trained on" not in repr(binlatent.load(trained))


def test_it_resumes_bit_equal(trained, tuned, tmp_path):
    """It starts from the autoencoder only once."""
    tiny.copy_of(trained, tmp_path / "run", *LONGER, "decoder_training.num_steps=12").train("decoder")
    config = config_lib.read(tmp_path / "run" / "config.json")
    Experiment.open(tmp_path / "run", config_lib.override(config, ["decoder_training.num_steps=24"])).train("decoder")
    names = ("step", "params", "ema", "opt_state")
    whole, parts = (load_parts(w / "decoder" / "checkpoints", names)[1] for w in (tuned, tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_it_needs_neither_codes_nor_a_prior_and_takes_a_discriminator_of_its_own(trained, tmp_path):
    adversarial = ("decoder_loss.adversarial.weight=0.1", "discriminator.channels=8", "discriminator.layers=1")
    adversarial += ("discriminator_optimizer.learning_rate=0.001",)
    experiment = tiny.copy_of(trained, tmp_path / "run")
    for name in ("codes", "prior"):
        shutil.rmtree(tmp_path / "run" / name)
    experiment = Experiment.open(tmp_path / "run", config_lib.override(experiment.config, list(adversarial)))
    experiment.train("decoder")
    params = load_ema(tmp_path / "run" / "decoder" / "checkpoints")[1]
    assert set(params) == {"decoder", "discriminator"} and set(params["decoder"]) == {"embed", "decoder"}


def test_a_decoder_of_another_autoencoder_is_refused(tuned, tmp_path):
    experiment = tiny.copy_of(tuned, tmp_path / "run", "autoencoder_training.num_steps=8")
    for stage in ("prior", "decoder"):  # beside which the autoencoder would not be trained on
        shutil.move(tmp_path / "run" / stage, tmp_path / stage)
    experiment.train("autoencoder")
    for stage in ("prior", "decoder"):
        shutil.move(tmp_path / stage, tmp_path / "run" / stage)
    message = r"the stage decoder continues autoencoder \w+, but the autoencoder here is \w+\. Move the folder"
    with pytest.raises(UserError, match=message):
        binlatent.load(tmp_path / "run")
    config = config_lib.override(experiment.config, ["decoder_training.num_steps=36"])
    with pytest.raises(UserError, match=message):
        Experiment.open(tmp_path / "run", config).train("decoder")


def test_keys_that_are_not_set_are_the_autoencoder_s():
    config = tiny.config(decoder_training__num_steps=7, decoder_loss__l1__weight=0.5, autoencoder_loss__l2__weight=2.0)
    stage = config_lib.build_decoder_stage(config, {})
    weights = {term.name: term.weight for term in stage.terms}
    assert (weights["l1"], weights["l2"], weights["adversarial"]) == (0.5, 2.0, 0)
    assert "batch_entropy" not in weights
    assert (stage.num_steps, stage.optimizer.learning_rate) == (7, config.autoencoder_optimizer.learning_rate)
    assert config_lib.build_training(config, "decoder").batch_size == 8


def test_terms_begin_at_once_whatever_they_did_in_stage_1():
    section = "autoencoder_loss__adversarial__"
    late = {f"{section}weight": 0.1, f"{section}start_step": 30_000, "discriminator_optimizer__learning_rate": 1e-4}
    annealed = {f"{section}initial_weight": 0.2, f"{section}anneal_steps": 9}
    config = tiny.config(**late, **annealed)
    assert config_lib.build_autoencoder_stage(config).complete_from == 30_000
    stage = config_lib.build_decoder_stage(config, {})
    (term,) = (term for term in stage.terms if term.name == "adversarial")
    assert term == Term(name="adversarial", weight=0.1) and stage.complete_from == 0


def stage_of(**options):
    params = NET.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    terms, optimizer = (Term(name="l1"),), Optimizer(learning_rate=1e-3)
    frozen = {"encoder": {name: params[name] for name in ("encoder", "code_logits")}}
    stage = DecoderStage(net=NET, terms=terms, optimizer=optimizer, num_steps=10, frozen=frozen, **options)
    return stage, decoder_params(params)


def test_bits_are_flipped_at_the_rate_and_only_in_training():
    images, keys = jnp.asarray(tiny.images(64)) / 255, prng.per_example(jax.random.key(1), 64)
    stage, params = stage_of(flip_rate=0.1)
    (_, logits), bits = stage.reconstruct(params, images, keys)
    assert 0.08 < (bits != (logits > 0)).mean() < 0.12
    assert np.array_equal(stage.reconstruct(params, images)[1], logits > 0)


def test_bits_are_drawn_where_the_prior_learns_drawn_codes():
    images, keys = jnp.asarray(tiny.images(64)) / 255, prng.per_example(jax.random.key(1), 64)
    stage, params = stage_of(drawn=True)
    (_, logits), bits = stage.reconstruct(params, images, keys)
    expected = jax.nn.sigmoid(-jnp.abs(logits)).mean()  # the chance that a drawn bit is not the thresholded one
    assert abs((bits != (logits > 0)).mean() - expected) < 0.02 and expected > 0.1
    assert np.array_equal(stage.reconstruct(params, images)[1], logits > 0)
    sure = dataclasses.replace(stage, net=NET.clone(deterministic=True))
    assert np.array_equal(sure.reconstruct(params, images, keys)[1], logits > 0)


def test_a_term_of_the_code_is_refused():
    with pytest.raises(ValueError, match=r"'batch_entropy'.*train the code"):
        DecoderStage(
            net=NET, terms=(Term(name="batch_entropy"),), optimizer=Optimizer(learning_rate=1e-3), num_steps=10
        )
