"""What a network's output means, by enumeration on small mixtures."""

import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion import prediction
from binlatent.diffusion.schedule import Linear
from binlatent.typing import Prediction

# two examples, two tokens, two components, three bits
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32))
MIXTURE = Prediction(LOGITS, jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 2)).astype(np.float32)))
T = jnp.array([0.25, 0.5])


def options(parametrization):
    return {"schedule": Linear(), "parametrization": parametrization}


def o(t):
    """The channel's evidence: a bit is flipped with probability t/2."""
    return np.log((t / 2) / (1 - t / 2))


def test_evidence_is_the_log_odds_of_a_flip():
    t = np.array([1e-3, 0.1, 0.7, 1.0], np.float32)
    np.testing.assert_allclose(prediction.evidence(jnp.asarray(1 - t)), o(t), rtol=2e-3, atol=1e-6)
    assert -30 < float(prediction.evidence(jnp.array(1.0))) < -25


def test_calibrate_adds_the_evidence_of_each_example_to_g():
    found = prediction.calibrate(MIXTURE, T, **options("leave_one_out"))
    np.testing.assert_allclose(found.logits, LOGITS + o(np.array([0.25, 0.5]))[:, None, None, None], rtol=1e-5)
    assert found.weights is MIXTURE.weights
    assert prediction.calibrate(MIXTURE, T, **options("flip")) is MIXTURE


def test_temper_divides_g_whatever_the_network_gives():
    found = prediction.temper(MIXTURE, T, 0.5, **options("leave_one_out"))
    np.testing.assert_allclose(found.logits, 2 * LOGITS, rtol=1e-6)
    none = prediction.temper(
        MIXTURE, jnp.ones(2), 0.5, **options("leave_one_out")
    )  # z_1 says nothing of the components
    np.testing.assert_allclose(none.weights, 2 * MIXTURE.weights, atol=1e-5)
    shift = o(np.array([0.25, 0.5]))[:, None, None, None]
    found = prediction.temper(MIXTURE, T, 0.5, **options("flip"))
    np.testing.assert_allclose(found.logits, 2 * (LOGITS - shift) + shift, rtol=1e-5)


def test_a_product_is_a_mixture_of_one():
    single = prediction.product(LOGITS[:, :, 0])
    assert (single.logits.shape, single.weights.shape) == ((2, 2, 1, 3), (2, 2, 1))
    assert np.array_equal(prediction.log_weights(single), np.zeros((2, 2, 1, 1)))
    assert np.array_equal(prediction.marginal(single), LOGITS[:, :, 0])


def test_weights_are_normalised():
    np.testing.assert_allclose(np.exp(prediction.log_weights(MIXTURE)).sum(-1), np.ones((2, 2, 1)), rtol=1e-6)


def test_the_marginal_of_a_mixture_is_the_weighted_probability():
    weights = np.exp(MIXTURE.weights) / np.exp(MIXTURE.weights).sum(-1, keepdims=True)
    p = (weights[..., None] / (1 + np.exp(-LOGITS))).sum(-2)
    np.testing.assert_allclose(prediction.marginal(MIXTURE), np.log(p / (1 - p)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_the_marginal_of_sure_components_is_finite(logit):
    sure = Prediction(jnp.full((1, 1, 2, 3), logit), jnp.zeros((1, 1, 2)))
    np.testing.assert_allclose(prediction.marginal(sure), np.full((1, 1, 3), logit), rtol=1e-6)
