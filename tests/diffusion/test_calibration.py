"""What the release's balanced loss learns, and which reverse step is exact for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion import process
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import Cosine

BALANCED = Objective(schedule=Cosine(), weighting="balanced")
T = 0.4
SET = 0.8  # probability of every bit, independently


def _true_flips(code_t, t):
    """Log-odds of a flip, given z_t, where all bits are independent: Bayes."""
    alpha = BALANCED.schedule(jnp.float32(t))
    prior = jnp.log(SET / (1 - SET)) * jnp.where(code_t, -1, 1)  # of the other value
    return prior + jnp.log1p(-alpha) - jnp.log1p(alpha)


@pytest.mark.parametrize("weighting", ["balanced", "uniform"])
def test_the_best_output_is_calibrated_by_calibrate(weighting):
    objective = Objective(schedule=Cosine(), weighting=weighting)
    code = jax.random.bernoulli(jax.random.key(0), SET, (20, 50_000))
    t = jnp.full(20, T)
    code_t = objective.corrupt(jax.random.uniform(jax.random.key(1), code.shape), code, t)

    def loss(shifts):
        # one free number for each value of the bit: all that a network could learn here
        return objective(jnp.where(code_t, shifts[0], shifts[1]), code, code_t, t)["loss"].mean()

    best = jnp.zeros(2)
    for _ in range(12):  # Newton
        best = best - jnp.linalg.solve(jax.hessian(loss)(best), jax.grad(loss)(best))
    learned = jnp.where(code_t[:1, :100], best[0], best[1])
    calibrated = objective.calibrate(learned, t[:1])
    np.testing.assert_allclose(calibrated, _true_flips(code_t[:1, :100], T), atol=0.03)
    assert (jnp.abs(calibrated - learned).min() > 0.5) == (weighting == "balanced")


def test_plugin_with_the_balanced_output_is_mixture_with_the_calibrated_one():
    code_t = jax.random.bernoulli(jax.random.key(0), 0.5, (4, 200))
    output, t = 2 * jax.random.normal(jax.random.key(1), code_t.shape), jnp.array([0.05, 0.3, 0.7, 0.999])
    alpha_t, alpha_s = BALANCED.schedule(t), BALANCED.schedule(t * 0.6)
    plugin = process.reverse(code_t, output, alpha_t, alpha_s, "plugin")
    mixture = process.reverse(code_t, BALANCED.calibrate(output, t), alpha_t, alpha_s, "mixture")
    np.testing.assert_allclose(plugin.one, mixture.one, atol=2e-6)
    uncalibrated = process.reverse(code_t, output, alpha_t, alpha_s, "mixture")
    assert jnp.abs(uncalibrated.one - plugin.one).max() > 0.1
