"""The prior's stage: that it learns, that conditions are dropped as often as asked, and that its validation is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import bits, prng
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import Linear
from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.denoiser import Denoiser
from binlatent.text.words import WordEncoder
from binlatent.train import metrics
from binlatent.train.optimizer import Optimizer
from binlatent.train.prior import PriorStage

SHAPE = (2, 2, 3)
CLASSES = 4
CAPTIONS = ("red cat", "a red dog", "red", "dog")  # of every class
CONDITIONINGS = {
    "label": {"num_classes": CLASSES},
    "vector": {"vector_width": 5},
    "tokens": {"token_width": 5},
    "words": {"vocabulary": 259},
    "words and label": {"vocabulary": 259, "num_classes": CLASSES},
}
PATTERNS = np.random.default_rng(0).random((CLASSES, *SHAPE)) < 0.5  # the code of every class


def stage(condition="label", label_dropout=0.1, objective=None):
    conditioning = Conditioning(**CONDITIONINGS[condition])
    net = {"width": 32, "depth": 1, "heads": 2, "components": 2, "text_depth": 1}
    return PriorStage(
        net=Denoiser(code_shape=SHAPE, conditioning=conditioning, **net),
        code_shape=SHAPE,
        objective=objective or Objective(schedule=Linear()),
        label_dropout=label_dropout,
        optimizer=Optimizer(learning_rate=1e-2, ema_decay=0.9),
        num_steps=1000,
    )


def batch(num, condition="label", shift=0):
    """Codes of the classes in turn, with the conditions of the class that is `shift` further."""
    label = (np.arange(num) % CLASSES).astype(np.int32)
    given = (label + shift) % CLASSES
    packed = np.asarray(bits.pack(jnp.asarray(PATTERNS[label])))
    values = {"code": packed, "mask": np.ones(num, bool)}
    rng = np.random.default_rng(1)
    if condition == "label":
        return values | {"label": given}
    if condition == "vector":
        return values | {"vector": rng.normal(size=(CLASSES, 5)).astype(np.float32)[given]}
    mask = np.arange(3) < rng.integers(1, 4, size=(CLASSES, 1))
    if condition == "tokens":
        return values | {
            "tokens": rng.normal(size=(CLASSES, 3, 5)).astype(np.float16)[given],
            "token_mask": mask[given],
        }
    made = WordEncoder.of(CAPTIONS, length=8, words=2).encode(CAPTIONS)  # some words by number, some in bytes
    values |= {"tokens": made.tokens[given], "token_mask": made.mask[given]}
    return values | {"label": given // 2} if condition == "words and label" else values


def train(made, data, steps):
    step = jax.jit(made.train_step)
    state = made.init(prng.root(0), data)
    for i in range(steps):
        state, values = step(state, data, prng.stream(prng.root(0), "train", i))
    return state, values


def evaluate(made, state, data, seed=0):
    found = jax.jit(made.eval_step)(state, data, prng.stream(prng.root(seed), "evaluate"))
    return metrics.compute(found)


@pytest.mark.parametrize("condition", CONDITIONINGS)
def test_it_learns_and_its_condition_matters(condition):
    """Every class has one code: 12 bits, of which the class says all and the codes without it 2."""
    made = stage(condition)
    data = batch(64, condition)
    state, _ = train(made, data, 150)
    right = evaluate(made, state, data)["bits_per_bit"]
    wrong = evaluate(made, state, batch(64, condition, shift=1))["bits_per_bit"]
    assert right < 0.15
    assert wrong > right + 0.5
    # guidance needs the null condition, trained by dropout: without a condition it costs about 2 of 12 bits
    null = made.noise(prng.root(0), 64) | {"condition_mask": jnp.zeros(64, bool)}
    known = made.noise(prng.root(0), 64) | {"condition_mask": jnp.ones(64, bool)}
    losses = [float(jax.jit(made.loss)(state.params, data, noise)[0]) for noise in (known, null)]
    assert losses[0] < losses[1] < 0.4  # nats a bit; 0.5 knows nothing but the channel


def test_conditions_are_dropped_as_often_as_asked():
    mask = stage(label_dropout=0.1).noise(prng.root(0), 4000)["condition_mask"]
    assert 0.07 < 1 - float(mask.mean()) < 0.13
    assert bool(stage(label_dropout=0.0).noise(prng.root(0), 4000)["condition_mask"].all())


def test_noise_has_earlier_times_and_low_discrepancy():
    noise = stage().noise(prng.root(0), 64)
    assert np.all(noise["s"] <= noise["t"])
    assert np.std(noise["s"] / noise["t"]) > 0.2
    np.testing.assert_allclose(np.diff(np.sort(noise["t"])), 1 / 64, atol=1e-6)


def test_auxiliary_term_trains():
    made = stage(objective=Objective(schedule=Linear(), auxiliary=0.1))
    _, values = train(made, batch(32), 20)
    assert values["finite"] and np.isfinite(values["auxiliary"])


def test_padding_takes_no_part_in_validation():
    """A third of the batch is padding: the bound is that of the real examples, at times spread over all of [0, 1]."""
    made, real = stage(), batch(32)
    state, _ = train(made, real, 60)
    padded = {name: np.concatenate([value, value[:1].repeat(64, 0)]) for name, value in real.items()}
    padded["mask"] = np.arange(96) < 32
    found, few = (evaluate(made, state, data) for data in (real, padded))
    for name, value in found.items():
        np.testing.assert_allclose(few[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_bound_of_validation_agrees_with_the_sum_over_all_steps_within_its_error():
    from binlatent.diffusion import elbo

    made, data = stage(), batch(96)
    state, _ = train(made, data, 30)

    def predict(z, t):
        return made.objective.calibrate(made.net.apply({"params": state.ema["denoiser"]}, z, t, Condition.of(data)), t)

    code = jnp.asarray(PATTERNS[np.arange(96) % CLASSES])
    keys = prng.per_example(prng.root(3), 96)
    terms = jax.jit(lambda k: elbo.negative_elbo(predict, k, code, schedule=Linear(), steps=256))(keys)
    true = float(terms.sum(0).mean()) / 12
    found = [evaluate(made, state, data, seed) for seed in range(12)]
    values = np.array([f["bits_per_bit"] for f in found])
    error = np.mean([f["bits_per_bit_error"] ** 2 for f in found]) ** 0.5
    assert abs(values.mean() - true) < 4 * error / 12**0.5 + 0.01
    assert 0.4 * error < values.std() < 2.5 * error  # rare draws are far off: the tail is heavy
