import re

import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.sampling.guidance import Guidance, guide
from binlatent.typing import Prediction


def denoise(condition, condition_mask):
    """Two components that tell whether the condition was there: the label where kept, −1 for the null."""
    value = condition.astype(jnp.float32) if condition_mask is None else jnp.where(condition_mask, condition, -1)

    def of_the_condition(code, t):
        logits = jnp.broadcast_to(value[:, None, None], (len(code), 2, 4)) + t[:, None, None]
        return Prediction(logits, value[:, None] * jnp.array([[1.0, 3.0]]))

    return of_the_condition


CODE, T, LABEL = jnp.zeros((3, 4), bool), jnp.array([0.0, 0.5, 1.0]), jnp.array([2, 5, 9])


def test_guidance_is_extrapolation_from_the_null():
    found = guide(denoise, LABEL, 2.0, Guidance())(CODE, T)
    expected = 3.0 * (LABEL + T) - 2.0 * (-1 + T)
    np.testing.assert_allclose(found.logits[:, 1, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.weights[:, 1], 3 * (3.0 * LABEL + 2.0), rtol=1e-6)


def test_weight_zero_is_the_identity():
    guided, plain = guide(denoise, LABEL, 0.0, Guidance())(CODE, T), denoise(LABEL, None)(CODE, T)
    assert np.array_equal(guided.logits, plain.logits)
    assert np.array_equal(guided.weights, plain.weights)


def test_a_negative_condition_takes_the_place_of_the_null():
    found = guide(denoise, LABEL, 2.0, Guidance(), jnp.array([1, 1, 4]))(CODE, T)
    expected = 3.0 * (LABEL + T) - 2.0 * (jnp.array([1, 1, 4]) + T)
    np.testing.assert_allclose(found.logits[:, 1, 0], expected, rtol=1e-6)


def test_interval_and_power():
    weights = Guidance(interval=(0.25, 0.75), guidance_power=1.0).weight_at(4.0, jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(weights, [0, 3, 2, 0])

    weights = Guidance(interval=(0.5, 0.5)).weight_at(4.0, jnp.array([0.49, 0.5, 0.51]))
    np.testing.assert_allclose(weights, [0, 4, 0])
    assert Guidance(guidance_power=2.0).weight_at(1.0, jnp.array([0.5])).tolist() == [0.25]
    assert Guidance().weight_at(1.5, T).tolist() == [1.5] * 3


def test_guidance_acts_where_its_weight_is_not_0():
    guidance = Guidance(interval=(0.3, 0.8))
    times = np.linspace(0, 1, 21, dtype=np.float32)
    weights = guidance.weight_at(2.0, jnp.asarray(times))
    assert [guidance.acts(t) for t in times] == (weights > 0).tolist()
    assert [guidance.acts(np.float32(t)) for t in (0.29, 0.3, 0.8, 0.81)] == [False, True, True, False]


def test_each_example_has_the_weight_of_its_time():
    found = guide(denoise, LABEL, 2.0, Guidance(interval=(0.4, 1.0), guidance_power=1.0))(CODE, T)
    weights = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(found.logits[:, 0, 3], (1 + weights) * (LABEL + T) - weights * (T - 1), rtol=1e-6)


@pytest.mark.parametrize("interval", [(0.5, 2.0), (-0.1, 0.5), (0.6, 0.5)])
def test_wrong_interval(interval):
    with pytest.raises(ValueError, match=re.escape(str(interval))):
        Guidance(interval=interval)
    with pytest.raises(ValueError, match=r"guidance_power -0\.5 is negative"):
        Guidance(guidance_power=-0.5)
