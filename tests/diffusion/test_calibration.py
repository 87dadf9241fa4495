"""What a network's output means: its best value under each loss, and temperature (docs/prior.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.prediction import evidence, product
from binlatent.diffusion.schedule import Cosine, Linear
from binlatent.sampling.sampler import Sampler
from binlatent.typing import Prediction

# (weighting, parametrization): ours, an imported model with the plain loss, one with the balanced loss
MODELS = [("uniform", "leave_one_out"), ("uniform", "flip"), ("balanced", "leave_one_out")]
T = 0.4
SET = 0.8  # probability of every bit, independently


def _g(code_t):
    """Leave-one-out flip log-odds where all bits are independent."""
    return jnp.log(SET / (1 - SET)) * jnp.where(code_t, -1.0, 1.0)


@pytest.mark.parametrize(("weighting", "parametrization"), MODELS)
def test_the_best_output_is_calibrated_by_calibrate(weighting, parametrization):
    objective = Objective(schedule=Cosine(), weighting=weighting, parametrization=parametrization)
    code = jax.random.bernoulli(jax.random.key(0), SET, (20, 50_000))
    t = jnp.full(20, T)
    code_t = objective.corrupt(jax.random.uniform(jax.random.key(1), code.shape), code, t)

    def loss(shifts):
        # one free number for each value of the bit: all that a network could learn here
        return objective(product(jnp.where(code_t, shifts[0], shifts[1])), code, code_t, t)["loss"].mean()

    best = jnp.zeros(2)
    for _ in range(12):  # Newton
        best = best - jnp.linalg.solve(jax.hessian(loss)(best), jax.grad(loss)(best))
    learned = product(jnp.where(code_t[:1, :100], best[0], best[1]))
    calibrated = objective.calibrate(learned, t[:1])
    true = _g(code_t[:1, :100]) + evidence(objective.schedule(jnp.float32(T)))
    np.testing.assert_allclose(calibrated.logits[:, 0], true, atol=0.03)
    assert (jnp.abs(calibrated.logits - learned.logits).min() > 0.5) == (parametrization == "leave_one_out")


@pytest.mark.parametrize("posterior", ["mixture", "plugin"])
@pytest.mark.parametrize(("weighting", "parametrization"), MODELS)
@pytest.mark.parametrize(("temperature", "target"), [(0.9, 0.8235), (0.6, 0.9097)])
@pytest.mark.parametrize("steps", [4, 64])
def test_temperature_acts_alike_at_any_number_of_steps(
    posterior, weighting, parametrization, temperature, target, steps
):
    """docs/prior.md's table: 0.8235 and 0.9097 at any number of steps; f/τ gave 0.8127 … 0.8034 and 0.8437 … 0.8042."""
    if (posterior, parametrization) == ("plugin", "flip"):
        pytest.skip("the plugin step of a calibrated estimate is biased at any temperature: the next test")
    objective = Objective(schedule=Linear(), weighting=weighting, parametrization=parametrization)
    found = _share_set(objective, posterior, temperature, steps, SET)
    np.testing.assert_allclose(found, target, atol=0.004)


def test_temperature_of_a_calibrated_estimate_with_plugin_is_the_sharper_bit():
    """The plugin step is biased for it. But temperature is that of another bit, whose log-odds are divided by it."""
    objective = Objective(schedule=Linear(), parametrization="flip")
    for steps in (4, 64):
        tempered = _share_set(objective, "plugin", 0.6, steps, SET)
        np.testing.assert_allclose(tempered, _share_set(objective, "plugin", 1.0, steps, 0.9097), atol=0.004)


def _share_set(objective, posterior, temperature, steps, set_):
    """Mean of sampled bits, each set with probability `set_`, for an exact network."""

    def denoise(code, t):
        g = jnp.log(set_ / (1 - set_)) * jnp.where(code, -1.0, 1.0)
        shift = evidence(objective.schedule(t))[:, None] if objective.parametrization == "flip" else 0.0
        output = objective.temper(product(g + shift), t, temperature)
        return objective.calibrate(output, t) if posterior == "mixture" else output

    sampler = Sampler(schedule=objective.schedule, steps=steps, posterior=posterior)
    keys = prng.per_example(jax.random.key(steps), 8)
    return float(jax.jit(lambda k: sampler(denoise, k, sampler.noise(k, (20_000,))))(keys).mean())


@pytest.mark.parametrize("parametrization", ["leave_one_out", "flip"])
def test_temperature_1_is_an_exact_identity_also_for_mixtures(parametrization):
    objective = Objective(schedule=Cosine(), parametrization=parametrization)
    output = Prediction(5 * jax.random.normal(jax.random.key(0), (4, 2, 3, 5)), jnp.arange(24.0).reshape(4, 2, 3))
    t = jnp.array([0.0, 1e-4, 0.5, 1.0])
    found = jax.jit(objective.temper)(output, t, jnp.float32(1.0))
    assert np.array_equal(found.logits, output.logits)
    assert np.array_equal(found.weights, output.weights)
    assert np.isfinite(objective.calibrate(output, t).logits).all()


# of two components of the code, and in each of them weights (tokens, c) and probabilities of a 1 (tokens, c, bits)
CODE_WEIGHTS = np.log([0.7, 0.3])
WEIGHTS = np.log([[[0.8, 0.2], [0.6, 0.4]], [[0.5, 0.5], [0.9, 0.1]]])
ONES = np.array(
    [[[[0.999, 0.9], [0.01, 0.4]], [[0.8, 0.3], [0.1, 0.2]]], [[[0.5, 0.001], [0.7, 0.95]], [[0.3, 0.3], [0.999, 0.6]]]]
)


def _distribution(temperature):
    """Of the 16 codes of two tokens of two bits: log-odds and log-weights of components are divided by the temperature."""
    logits = jnp.log(ONES / (1 - ONES))[None] / temperature
    codes = (np.arange(16)[:, None] >> np.arange(4) & 1).reshape(16, 1, 2, 1, 2).astype(bool)
    tokens = jax.nn.log_sigmoid(jnp.where(codes, logits, -logits)).sum(-1)
    parts = jax.nn.logsumexp(jax.nn.log_softmax(WEIGHTS[None] / temperature, -1) + tokens, -1).sum(-1)
    return jnp.exp(jax.nn.logsumexp(jax.nn.log_softmax(CODE_WEIGHTS / temperature)[None] + parts, -1))


@pytest.mark.parametrize(
    ("posterior", "parametrization"), [("mixture", "leave_one_out"), ("plugin", "leave_one_out"), ("mixture", "flip")]
)
@pytest.mark.parametrize("steps", [1, 4, 64])
def test_temperature_of_components_acts_alike_at_any_number_of_steps(posterior, parametrization, steps):
    """Most of what a mixture does not know is in its weights, which temperature sharpens too."""
    objective = Objective(schedule=Linear(), parametrization=parametrization)

    def denoise(code, t):  # code (b, 2, 2)
        o = evidence(objective.schedule(t))[:, None, None, None, None]
        g = jnp.log(ONES / (1 - ONES))[None] * jnp.where(code[:, None, :, None], -1.0, 1.0)  # (b, g, tokens, c, bits)
        seen = (jax.nn.softplus(g + o) - jax.nn.softplus(g)).sum(-1)
        tokens = jax.nn.logsumexp(WEIGHTS[None] + seen, -1).sum(-1)  # (b, g)
        logits, weights = (
            jnp.moveaxis(x, 1, 2) for x in (g + (o if parametrization == "flip" else 0), WEIGHTS[None] + seen)
        )
        b = code.shape[0]
        output = Prediction(logits.reshape(b, 2, 4, 2), weights.reshape(b, 2, 4), CODE_WEIGHTS[None] + tokens)
        output = objective.temper(output, t, 0.6)
        return objective.calibrate(output, t) if posterior == "mixture" else output

    sampler = Sampler(schedule=objective.schedule, steps=steps, posterior=posterior)
    keys = prng.per_example(jax.random.key(steps), 10_000)
    code = jax.jit(lambda k: sampler(denoise, k, sampler.noise(k, (2, 2))))(keys)
    number = np.asarray(code.reshape(-1, 4) @ (1 << np.arange(4)))
    found = np.bincount(number, minlength=16) / len(number)
    np.testing.assert_allclose(found, _distribution(0.6), atol=0.02)
    assert np.abs(_distribution(0.6) - _distribution(1.0)).max() > 0.1
