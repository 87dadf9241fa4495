import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion.schedule import SCHEDULES, schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_falls_from_one_to_zero(name):
    alpha = np.asarray(schedule(name)(jnp.linspace(0.0, 1.0, 257)))
    np.testing.assert_allclose(alpha[[0, -1]], [1, 0], atol=1e-7)
    assert np.all(np.diff(alpha) < 0)


T = np.array([0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
SIGMOID = 1 / (1 + np.exp(3 * T / 0.8))  # from 0 to 3 at temperature 0.8, then rescaled to run from 1 to 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", 1 - T),
        ("cosine", (1 + np.cos(np.pi * T)) / 2),
        ("sigmoid", (SIGMOID - SIGMOID[-1]) / (SIGMOID[0] - SIGMOID[-1])),
    ],
)
def test_formula(name, expected):
    """Also with few digits lost near t = 1, where ratios of two α are needed."""
    found = schedule(name)(jnp.asarray(T, jnp.float32))
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-5)
    np.testing.assert_allclose(found[4], expected[4], rtol=1e-3)


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
