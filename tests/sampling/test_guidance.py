import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.sampling.guidance import Guidance, bind, guide


def denoise(code, t, condition, keep):
    """Flip log-odds that tell whether the condition was there: the label where kept, −1 for the null."""
    value = condition.astype(jnp.float32) if keep is None else jnp.where(keep, condition, -1)
    return jnp.broadcast_to(value[:, None], code.shape) + t[:, None]


CODE, T, LABEL = jnp.zeros((3, 4), bool), jnp.array([0.0, 0.5, 1.0]), jnp.array([2, 5, 9])


def test_guidance_is_extrapolation_from_the_null():
    found = guide(denoise, LABEL, 2.0, Guidance())(CODE, T)
    expected = 3.0 * (LABEL + T) - 2.0 * (-1 + T)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_weight_zero_is_the_identity():
    assert np.array_equal(guide(denoise, LABEL, 0.0, Guidance())(CODE, T), bind(denoise, LABEL)(CODE, T))


def test_interval_and_power():
    weights = Guidance(interval=(0.25, 0.75), power=1.0).weight_at(4.0, jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(weights, [0, 3, 2, 0])


def test_wrong_interval():
    with pytest.raises(ValueError, match=r"\(0.5, 2.0\)"):
        Guidance(interval=(0.5, 2.0))
