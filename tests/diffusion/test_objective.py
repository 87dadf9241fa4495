import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion.objective import Objective, low_discrepancy_times
from binlatent.diffusion.schedule import Linear

CODE = jnp.array([[True, False, True, True]])
CODE_T = jnp.array([[False, False, True, True]])  # the first bit is flipped
LOGITS = jnp.array([[1.0, -2.0, 0.5, -1.0]])
T = jnp.array([0.25])


def terms(**options):
    return Objective(schedule=Linear(), **options)(LOGITS, CODE, CODE_T, T)


def softplus(x):
    return np.log1p(np.exp(x))


CROSS_ENTROPY = np.array([softplus(-1.0), softplus(-2.0), softplus(0.5), softplus(-1.0)])


def test_cross_entropy_on_flips():
    found = terms()
    np.testing.assert_allclose(found["loss"], [CROSS_ENTROPY.mean()], rtol=1e-6)
    np.testing.assert_allclose(found["flip_accuracy"], [0.75])


def test_weightings():
    np.testing.assert_allclose(terms(weighting="weighted")["loss"], [0.75 * CROSS_ENTROPY.mean()], rtol=1e-6)
    balanced = (CROSS_ENTROPY * np.array([0.75, 0.25, 0.25, 0.25])).mean()
    np.testing.assert_allclose(terms(weighting="balanced")["loss"], [balanced], rtol=1e-6)


def test_auxiliary_term_is_zero_for_a_certain_and_right_estimate():
    objective = Objective(schedule=Linear(), auxiliary=1.0)
    right = jnp.where(CODE ^ CODE_T, 60.0, -60.0)
    np.testing.assert_allclose(objective(right, CODE, CODE_T, T)["auxiliary"], [0.0], atol=1e-6)
    assert float(terms(auxiliary=1.0)["auxiliary"][0]) > 1e-3


def test_times_are_spread_over_the_batch():
    t = np.sort(np.asarray(low_discrepancy_times(jax.random.key(0), 64)))
    assert t[0] >= 0
    assert t[-1] < 1
    np.testing.assert_allclose(np.diff(t), 1 / 64, atol=1e-6)


def test_gradient_vanishes_at_the_true_posterior():
    """The loss is proper: at the true flip probability its expected gradient is zero."""
    p = 0.3
    logit = jnp.full((1, 1), np.log(p / (1 - p)))
    objective = Objective(schedule=Linear())

    def expected(logit):
        flipped = objective(logit, jnp.ones((1, 1), bool), jnp.zeros((1, 1), bool), T)["loss"][0]
        kept = objective(logit, jnp.ones((1, 1), bool), jnp.ones((1, 1), bool), T)["loss"][0]
        return p * flipped + (1 - p) * kept

    np.testing.assert_allclose(jax.grad(expected)(logit), [[0.0]], atol=1e-6)


def test_unknown_weighting():
    with pytest.raises(ValueError, match="uniform, weighted, balanced"):
        terms(weighting="focal")
