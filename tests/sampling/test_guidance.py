import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.sampling.guidance import Guidance, bind, guide
from binlatent.typing import Prediction


def denoise(code, t, condition, condition_mask):
    """Two components that tell whether the condition was there: the label where kept, −1 for the null."""
    value = condition.astype(jnp.float32) if condition_mask is None else jnp.where(condition_mask, condition, -1)
    logits = jnp.broadcast_to(value[:, None, None], (len(code), 2, 4)) + t[:, None, None]
    return Prediction(logits, value[:, None] * jnp.array([[1.0, 3.0]]))


CODE, T, LABEL = jnp.zeros((3, 4), bool), jnp.array([0.0, 0.5, 1.0]), jnp.array([2, 5, 9])


def test_guidance_is_extrapolation_from_the_null():
    found = guide(denoise, LABEL, 2.0, Guidance())(CODE, T)
    expected = 3.0 * (LABEL + T) - 2.0 * (-1 + T)
    np.testing.assert_allclose(found.logits[:, 1, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.weights[:, 1], 3 * (3.0 * LABEL + 2.0), rtol=1e-6)


def test_weight_zero_is_the_identity():
    guided, plain = guide(denoise, LABEL, 0.0, Guidance())(CODE, T), bind(denoise, LABEL)(CODE, T)
    assert np.array_equal(guided.logits, plain.logits)
    assert np.array_equal(guided.weights, plain.weights)


def test_interval_and_power():
    weights = Guidance(interval=(0.25, 0.75), guidance_power=1.0).weight_at(4.0, jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(weights, [0, 3, 2, 0])


def test_wrong_interval():
    with pytest.raises(ValueError, match=r"\(0.5, 2.0\)"):
        Guidance(interval=(0.5, 2.0))
