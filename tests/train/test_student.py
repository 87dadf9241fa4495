"""Students: that they start as their prior, learn to sample in few steps, and are known to everything that opens a model."""

import dataclasses
import os
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import binlatent
from binlatent import bits, prng
from binlatent import config as config_lib
from binlatent.checkpoint import load_ema, load_parts
from binlatent.cli.info import describe
from binlatent.cli.main import main
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import Linear
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.export.functions import functions
from binlatent.export.write import export_model
from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.denoiser import Denoiser
from binlatent.sampling import programs
from binlatent.sampling.sampler import Sampler
from binlatent.stored.pack import named_arrays
from binlatent.train import metrics
from binlatent.train.metrics import read_records
from binlatent.train.optimizer import Optimizer, accumulate
from binlatent.train.prior import PriorStage
from binlatent.train.student import StudentStage, teacher_of
from tests import tiny

SHAPE = (2, 2, 2)
PATTERNS = np.random.default_rng(1).random((3, 2, *SHAPE)) < 0.5  # the two codes of every class


def batch(num):
    label = np.arange(num) % 3
    code = PATTERNS[label, np.arange(num) // 3 % 2]
    return {
        "code": np.asarray(bits.pack(jnp.asarray(code))),
        "label": label.astype(np.int32),
        "mask": np.ones(num, bool),
    }


def prior_stage():
    net = {"width": 32, "depth": 1, "heads": 2, "components": 2}
    return PriorStage(
        net=Denoiser(code_shape=SHAPE, conditioning=Conditioning(num_classes=3), **net),
        code_shape=SHAPE,
        objective=Objective(schedule=Linear()),
        label_dropout=0.1,
        optimizer=Optimizer(learning_rate=1e-2, ema_decay=0.9),
        num_steps=1000,
    )


@pytest.fixture(scope="module")
def prior():
    """A trained prior of two codes a class, its stage and its parameters."""
    made, data = prior_stage(), batch(96)
    step, state = jax.jit(made.train_step), made.init(prng.root(0), data)
    for i in range(150):
        state, _ = step(state, data, prng.stream(prng.root(0), "train", i))
    return made, state.ema["denoiser"]


def student_stage(prior, *, guidance=0.0, steps=2, anchor=0.0):
    made, params = prior
    conditioning = dataclasses.replace(made.net.conditioning, guidance=bool(guidance))
    adam = {"b1": 0.0, "b2": 0.99, "ema_decay": 0.9}
    return StudentStage(
        net=made.net.clone(conditioning=conditioning),
        code_shape=SHAPE,
        objective=made.objective,
        optimizer=Optimizer(learning_rate=1e-3, **adam),
        auxiliary_optimizer=Optimizer(learning_rate=5e-3, **adam),
        num_steps=1000,
        frozen={"teacher": params},
        steps=steps,
        guidance=guidance,
        anchor=anchor,
    )


def first_state(stage):
    """A fresh state with the teacher's parameters."""
    state = stage.init(prng.root(0), batch(96))
    params = {name: tree | stage.frozen["teacher"] for name, tree in state.params.items()}
    return dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params))


def evaluate(stage, state):
    return metrics.compute(jax.jit(stage.eval_step)(state, batch(96), prng.stream(prng.root(0), "evaluate")))


def wrong(stage, params, steps, weight=0.0, num=600):
    """The share of samples that are no code of their class."""
    label = jnp.arange(num) % 3
    keys = prng.per_example(prng.root(5), num)
    condition = Condition(label=label, guidance=jnp.full(num, weight) if programs.takes_guidance(stage.net) else None)
    sampler = Sampler(schedule=Linear(), steps=steps)

    @jax.jit
    def sample(params):
        def denoise(z, t):
            return stage.objective.calibrate(stage.net.apply({"params": params}, z, t, condition), t)

        return sampler(denoise, keys, sampler.noise(keys, SHAPE))

    found = np.asarray(sample(params))
    return 1 - (found[:, None] == PATTERNS[np.asarray(label)]).all((2, 3, 4)).any(1).mean()


def test_at_first_student_auxiliary_and_teacher_agree(prior):
    stage = student_stage(prior)
    found = evaluate(stage, first_state(stage))
    assert abs(found["gap"]) < 1e-5


def test_guidance_is_an_input_that_starts_without_effect(prior):
    stage = student_stage(prior, guidance=3.0)
    params = first_state(stage).params["denoiser"]
    code, t = jnp.asarray(PATTERNS[:, 0]), jnp.full(3, 0.5)
    none, some = (Condition(label=jnp.arange(3), guidance=w) for w in (None, jnp.array([0.0, 1.0, 3.0])))
    teacher = teacher_of(stage.net).apply({"params": prior[1]}, code, t, none)
    for given in (none, some):
        found = stage.net.apply({"params": params}, code, t, given)
        np.testing.assert_array_equal(found.logits, teacher.logits)
    guided = stage._teach(code, t, none, jnp.array([0.0, 1.0, 3.0]))
    plain = stage._read(teacher, t)
    assert np.allclose(guided.logits[0], plain.logits[0]) and not np.allclose(guided.logits[1:], plain.logits[1:])
    with pytest.raises(ValueError, match="has no input for it"):
        teacher_of(stage.net).apply({"params": prior[1]}, code, t, some)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_it_learns_to_sample_in_few_steps(prior, guidance):
    stage, data = student_stage(prior, guidance=guidance), batch(96)
    step, state = jax.jit(stage.train_step), first_state(stage)
    before = wrong(stage, state.params["denoiser"], 2, guidance)
    for i in range(150):
        state, values = step(state, data, prng.stream(prng.root(0), "train", i))
    assert values["finite"] and values["gap"] > 0
    after = wrong(stage, state.ema["denoiser"], 2, guidance)
    assert after < 0.7 * before, (before, after)


def test_micro_batches_give_the_same_gradient(prior):
    stage, data = student_stage(prior, guidance=1.0, anchor=0.1), batch(96)
    params, noise = first_state(stage).params, stage.noise(prng.root(3), 96)
    whole, parts = (
        jax.jit(partial(accumulate, partial(stage.gradients, params), micro_batches=n))(data, noise) for n in (1, 3)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts)


# --- in a work directory ---


@pytest.fixture(scope="module")
def taught(trained, tmp_path_factory):
    """A copy of the trained work directory with a student that takes guidance."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    tiny.copy_of(trained, folder, "student.guidance=2.0").train("student")
    return folder


def test_a_student_is_sampled_in_its_own_number_of_steps(trained, taught, tmp_path):
    prior, student = binlatent.load(taught), binlatent.load(taught, student=True)
    assert prior.student is None and prior.options().steps == 16
    assert student.student == {"steps": 4, "guidance": 2.0} and student.options().steps == 4
    assert "a student of 4 sampling steps" in repr(student) and "student" not in repr(prior)
    asked = {"seed": 1, "num": 4, "labels": [0], "steps": 4}
    before = binlatent.load(trained).sample(**asked)
    np.testing.assert_array_equal(prior.sample(**asked), before)
    images = student.sample(**asked | {"steps": None})
    assert images.shape == before.shape and np.isfinite(images).all()
    main(["sample", "--workdir", str(taught), "--student", "--num", "3", "--out", str(tmp_path / "samples.npz")])
    assert np.load(tmp_path / "samples.npz")["images"].shape == (3, 8, 8, 1)


def test_what_a_student_has_not_learned_is_refused(taught, capsys):
    student = binlatent.load(taught, student=True)
    for message, asked in {
        "weights from 0 to 2": {"guidance": 3.0},
        "has not learned the null condition": {"labels": "none"},
        "have no meaning for a student": {"guidance": 1.0, "guidance_power": 1.0},
    }.items():
        with pytest.raises(UserError, match=message):
            student.sample(num=2, **asked)
    with pytest.raises(UserError, match="a student has no likelihood"):
        student.bits_per_bit(np.zeros((1, *student.code_shape), bool))
    capsys.readouterr()
    student.sample(num=2, steps=3, guidance=1.0)
    assert "has not learned the times of 3 steps from 1, but those of 1, 2, 4 steps from 1" in capsys.readouterr().err


def test_a_pack_holds_a_student_in_place_of_its_prior(taught, trained, tmp_path):
    files = [tmp_path / "student.safetensors", tmp_path / "prior.safetensors"]
    main(["pack", "--workdir", str(taught), "--student", "--out", str(files[0])])
    main(["pack", "--workdir", str(taught), "--out", str(files[1])])
    student, asked = binlatent.load(taught, student=True), {"seed": 3, "num": 2, "labels": [0, 2], "guidance": 1.0}
    for options in ({}, {"student": True}):
        np.testing.assert_array_equal(binlatent.load(files[0], **options).sample(**asked), student.sample(**asked))
    assert binlatent.load(files[1]).student is None
    for path in (files[1], trained):
        with pytest.raises(UserError, match="has no student: `binlatent train --stage student` makes one"):
            binlatent.load(path, student=True)


def test_an_export_takes_the_guidance_of_a_student(taught, tmp_path):
    student = binlatent.load(taught, student=True)
    made = {f.name: f for f in functions(student, student.options(guidance=1.0))}["sample"]
    params = named_arrays({"autoencoder": student.autoencoder.params, "prior": student.prior.params})
    given = [jnp.float32(1), jnp.array([2, 0], jnp.int32), jnp.float32(1.0)]
    images, _ = jax.jit(made.call)(params, jnp.uint32(3), jnp.arange(2, dtype=jnp.uint32), *given)
    asked = {"seed": 3, "num": 2, "labels": [2, 0], "guidance": 1.0, "image_dtype": "uint8"}
    np.testing.assert_array_equal(images, next(student.sample_batches(**asked)).images)
    with pytest.raises(UserError, match="weights from 0 to 2"):
        export_model(student, tmp_path / "model", student.options(guidance=3.0))


def test_info_names_it(taught, trained):
    assert "of 4 sampling steps, guidance up to 2 (--student)" in describe(taught)
    assert "student" not in describe(trained)


def test_its_scores_have_files_of_their_own(taught, tmp_path):
    shutil.copytree(taught, tmp_path / "run")
    network = tmp_path / "means.py"
    network.write_text("def features(images):\n    return images.reshape(images.shape[0], -1)[:, :5]\n")
    command = ["evaluate", "--workdir", str(tmp_path / "run"), "--features", str(network), "--num", "40"]
    main([*command, "--only", "generation", "--student"])
    written = set(os.listdir(tmp_path / "run"))
    assert {"student_scores.json", "student_report.html"} <= written and not {"scores.json", "report.html"} & written
    with pytest.raises(SystemExit):
        main([*command, "--only", "likelihood", "--student"])
    main([*command, "--only", "generation"])
    scores = [(tmp_path / "run" / name).read_text() for name in ("scores.json", "student_scores.json")]
    assert scores[0] != scores[1]
    assert any("evaluation" in str(record) for record in read_records(tmp_path / "run" / "student"))


def state_of(workdir):
    return load_parts(workdir / "student" / "checkpoints", ("step", "params", "ema", "opt_state"))[1]


def test_it_resumes_bit_equal(trained, taught, tmp_path):
    half = ["student_training.num_steps=2", "student_training.evaluate_every=2", "student.guidance=2.0"]
    tiny.copy_of(trained, tmp_path / "run", *half).train("student")
    Experiment.open(tmp_path / "run", config_lib.read(taught / "config.json")).train("student")
    jax.tree.map(np.testing.assert_array_equal, state_of(taught), state_of(tmp_path / "run"))
    assert set(load_ema(taught / "student" / "checkpoints")[1]) == {"denoiser", "auxiliary"}


def test_one_device_and_eight_give_equal_losses(trained, taught, tmp_path, monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *a: one)
    monkeypatch.setattr(jax, "local_devices", lambda *a, **k: one)
    tiny.copy_of(trained, tmp_path / "run", "student.guidance=2.0").train("student")
    for a, b in zip(read_records(taught / "student"), read_records(tmp_path / "run" / "student"), strict=True):
        for name in (n for n in a if n.endswith(("/loss", "/gap", "/auxiliary"))):
            np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=f"step {a['step']} {name}")


def test_a_student_needs_its_prior(trained, taught, tmp_path, capsys):
    bare = tiny.copy_of(trained, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "prior")
    with pytest.raises(UserError, match="has no prior yet, which a student is made of"):
        bare.train("student")
    other = tiny.copy_of(taught, tmp_path / "other", "prior_training.num_steps=8")
    capsys.readouterr()
    other._student_stage(other.splits())
    assert "the prior has 6 of 8 steps: a student is of the prior as it is now" in capsys.readouterr().err
    other.train("prior")
    message = r"the student was taught by prior \w+, but the prior here is \w+\. Move the folder 'student' away"
    with pytest.raises(UserError, match=message):
        binlatent.load(tmp_path / "other", student=True)
    with pytest.raises(UserError, match=message):  # not "done"
        other.train("student")


def test_its_keys_are_fixed_and_default_to_the_prior_s(taught):
    config = config_lib.read(taught / "config.json")
    training = config_lib.build_training(config, "student")
    assert (training.batch_size, training.num_steps) == (config.prior_training.batch_size, 6)
    for key in ("student.steps=2", "auxiliary_optimizer.b2=0.9", "prior.depth=3"):
        with pytest.raises(UserError, match=key.partition("=")[0]):
            Experiment.open(taught, config_lib.override(config, [key]))
    with pytest.raises(UserError, match="has no input for guidance"):
        config_lib.build_student_stage(
            config_lib.override(config, ["prior.architecture=official"]), (4, 4, 4), Conditioning(num_classes=3), {}
        )
