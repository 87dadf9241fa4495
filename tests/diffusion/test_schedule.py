import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion.schedule import SCHEDULES, schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_falls_from_one_to_zero(name):
    alpha = np.asarray(schedule(name)(jnp.linspace(0.0, 1.0, 257)))
    np.testing.assert_allclose(alpha[[0, -1]], [1, 0], atol=1e-7)
    assert np.all(np.diff(alpha) < 0)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'quadratic'.*linear, cosine, sigmoid"):
        schedule("quadratic")


@pytest.mark.parametrize(("name", "official"), [("linear", "linear"), ("cosine", "cos"), ("sigmoid", "sigmoid")])
@pytest.mark.parametrize("steps", [4, 16, 64, 256])
def test_equals_the_release(reference, name, official, steps):
    table = np.load(f"{reference}/schedules.npz")
    alpha = np.asarray(schedule(name)(jnp.arange(steps + 1) / steps))
    np.testing.assert_allclose(alpha, table[f"{official}/{steps}/k_final"], atol=1e-6)
    np.testing.assert_allclose((1 - alpha) / 2, table[f"{official}/{steps}/b_final"], atol=1e-6)
    np.testing.assert_allclose(alpha[1:] / alpha[:-1], table[f"{official}/{steps}/beta"][1:], atol=1e-6)
