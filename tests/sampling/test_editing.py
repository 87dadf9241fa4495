import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion.schedule import Linear
from binlatent.sampling import editing
from binlatent.sampling.grid import time_grid
from binlatent.sampling.sampler import Sampler
from tests.oracle import Oracle


@pytest.mark.parametrize("kind", editing.CLAMPS)
def test_known_bits_survive_and_the_rest_follows_them(kind):
    """Inpainting with the oracle: completed codes are patterns of the distribution that agree with the known half.

    By chance 1 in 8 would; replacement is no exact conditional sampling, so not all do.
    """
    oracle = Oracle.random(Linear(), bits=8, patterns=6)
    sampler = Sampler(schedule=Linear(), steps=64)
    keys = prng.per_example(jax.random.key(0), 200)
    code = jnp.broadcast_to(oracle.patterns[0], (200, 8))
    known = jnp.broadcast_to(jnp.arange(8) < 5, (200, 8))
    final = sampler(oracle, keys, sampler.noise(keys, (8,)), clamp=editing.hold(code, known, kind))
    assert np.array_equal(final[:, :5], code[:, :5])
    valid = (np.asarray(final)[:, None] == np.asarray(oracle.patterns)[None]).all(-1).any(-1)
    assert valid.mean() > 0.6


def test_interpolation_runs_from_one_end_to_the_other():
    first, second = jnp.zeros((4, 4, 2), bool), jnp.ones((4, 4, 2), bool)
    path = editing.interpolate(jax.random.uniform(jax.random.key(0), first.shape), first, second, 5)
    assert not path[0].any()
    assert path[-1].all()
    assert np.all(np.diff(np.asarray(path).reshape(5, -1).sum(1)) >= 0)


def test_grid():
    np.testing.assert_allclose(time_grid(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(2, start=0.5, time_power=2.0), [0.5, 0.125, 0])
    with pytest.raises(ValueError, match="steps is 0"):
        time_grid(0)


def test_a_box_covers_the_tokens_that_it_touches():
    bits = np.asarray(editing.box("0,0.25,0.5,0.75", (4, 4, 2)))
    assert bits[..., 0].tolist() == [[False, True, True, False]] * 2 + [[False] * 4] * 2
    assert np.asarray(editing.box("0.3,0.3,0.31,0.31", (4, 4, 2))).sum() == 2
    for wrong in ("1,2,3", "0.5,0,0.5,1", "a,b,c,d"):
        with pytest.raises(ValueError, match="expected"):
            editing.box(wrong, (4, 4, 2))
