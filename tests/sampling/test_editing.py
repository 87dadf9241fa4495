import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion.schedule import Linear
from binlatent.sampling import editing
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


@jax.debug_key_reuse(False)
def test_clamps_hold_the_code_or_noise_it_to_the_level_of_the_step():
    keys = prng.per_example(jax.random.key(0), 2)
    code = jnp.ones((2, 5000), bool)
    known, current = jnp.broadcast_to(jnp.arange(5000) < 4000, code.shape), ~code
    held = editing.hold(code, known, "code")(keys, current, jnp.float32(0.0))
    assert np.array_equal(held, known)
    held = editing.hold(code, known)(keys, current, jnp.float32(0.5))
    assert not held[:, 4000:].any()
    np.testing.assert_allclose(held[:, :4000].mean(1), [0.75, 0.75], atol=0.04)
    assert not np.array_equal(held[0], held[1])
    with pytest.raises(ValueError, match="no clamp 'hard'; there are noised, code"):
        editing.hold(code, known, "hard")


@jax.debug_key_reuse(False)
def test_a_noised_code_has_the_bits_of_its_noise_level():
    keys = prng.per_example(jax.random.key(1), 2)
    code = jnp.ones((2, 5000), bool)
    noised = editing.noised(keys, code, jnp.float32(0.5))
    np.testing.assert_allclose(noised.mean(1), [0.75, 0.75], atol=0.04)
    assert not np.array_equal(noised[0], noised[1])
    assert np.array_equal(editing.noised(keys, code, jnp.float32(1.0)), code)


def test_passes_make_the_rest_follow_what_is_known():
    """RePaint: going back and forth brings completions nearer to the exact conditional distribution."""
    oracle = Oracle.random(Linear(), bits=8, patterns=6)
    keys = prng.per_example(jax.random.key(0), 400)
    code = jnp.broadcast_to(oracle.patterns[0], (400, 8))
    known = jnp.broadcast_to(jnp.arange(8) < 3, (400, 8))
    agree = np.all(np.asarray(oracle.patterns)[:, :3] == np.asarray(oracle.patterns)[0, :3], 1)
    valid = []
    for passes in (1, 8):
        sampler = Sampler(schedule=Linear(), steps=16)
        final = sampler(oracle, keys, sampler.noise(keys, (8,)), clamp=editing.hold(code, known), passes=passes)
        assert np.array_equal(final[:, :3], code[:, :3])
        allowed = np.asarray(oracle.patterns)[agree]
        valid.append((np.asarray(final)[:, None] == allowed[None]).all(-1).any(-1).mean())
    assert valid[1] > valid[0] + 0.02


def test_one_pass_is_the_sampler_as_it_was_and_states_count_passes():
    oracle, sampler = Oracle.random(Linear(), bits=8, patterns=6), Sampler(schedule=Linear(), steps=4)
    keys = prng.per_example(jax.random.key(0), 5)
    start = sampler.noise(keys, (8,))
    assert np.array_equal(sampler(oracle, keys, start), sampler(oracle, keys, start, passes=1))
    _, states = sampler(oracle, keys, start, passes=3, trajectory=True)
    assert states.shape == (13, 5, 8)


def test_interpolation_runs_from_one_end_to_the_other():
    first, second = jnp.zeros((4, 4, 2), bool), jnp.ones((4, 4, 2), bool)
    path = editing.interpolate(jax.random.uniform(jax.random.key(0), first.shape), first, second, 5)
    assert not path[0].any()
    assert path[-1].all()
    assert np.all(np.diff(np.asarray(path).reshape(5, -1).sum(1)) >= 0)
    uniform = jnp.array([0.0, 0.2, 0.6, 0.99])
    path = editing.interpolate(uniform, jnp.zeros(4, bool), jnp.ones(4, bool), 3)
    assert path.astype(int).tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert np.array_equal(editing.interpolate(uniform, path[1], path[0], 2), path[1::-1])
    with pytest.raises(ValueError, match="at least 2 codes, got 1"):
        editing.interpolate(uniform, path[0], path[2], 1)
