import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import elbo, process
from binlatent.diffusion.prediction import evidence, product
from binlatent.diffusion.schedule import Linear
from tests.oracle import Oracle, guess


def bound(oracle, codes, steps, seed=0):
    keys = prng.per_example(jax.random.key(seed), len(codes))
    return jax.jit(lambda c, k: elbo.negative_elbo(oracle, k, c, schedule=Linear(), steps=steps))(codes, keys)


@jax.debug_key_reuse(False)
def test_it_is_the_loop_over_its_terms():
    """Written out, with the keys of every draw, for two tokens of three bits and components of the code and of tokens."""
    keys = prng.per_example(jax.random.key(2), 4)
    code = prng.uniform(prng.fold(keys, 100), (2, 3)) < 0.5
    found = elbo.negative_elbo(guess, keys, code, schedule=Linear(), steps=3)
    assert found.shape == (3, 4)
    for i in (1, 2, 3):
        a_t, a_s, step = 1 - i / 3, 1 - (i - 1) / 3, prng.fold(keys, i)
        noise, uniform = prng.uniform(prng.fold(step, 0), (2, 3)), prng.uniform(prng.fold(step, 1), (2, 3))
        code_t = code ^ (noise < (1 - a_t) / 2)
        nats = process.divergence(guess(code_t, jnp.full(4, i / 3)), code ^ code_t, uniform, a_t, a_s)
        np.testing.assert_allclose(found[i - 1], nats / np.log(2), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        elbo.negative_elbo(guess, keys, code, schedule=Linear(), steps=0)


def test_bound_of_the_oracle_approaches_the_entropy_from_above():
    oracle = Oracle.random(Linear())
    index = jax.random.choice(jax.random.key(1), 12, (2000,), p=oracle.weights)
    codes = oracle.patterns[index]
    coarse, fine = (float(bound(oracle, codes, steps).sum(0).mean()) for steps in (4, 128))
    empirical = -float(jnp.log2(oracle.weights)[index].mean())  # of these draws, so that only the bound's noise is left
    assert coarse > fine > empirical - 0.03
    assert fine < empirical + 0.12


def test_components_lower_the_bound_of_few_steps():
    """With one component a pattern, the bound of any number of steps is near the entropy."""
    found = {}
    for components in (1, 4, 12):
        oracle = Oracle.random(Linear(), components=components)
        index = jax.random.choice(jax.random.key(1), 12, (2000,), p=oracle.weights)
        found[components] = float(bound(oracle, oracle.patterns[index], 4).sum(0).mean())
    empirical = -float(jnp.log2(oracle.weights)[index].mean())
    assert found[1] > found[4] + 0.1 > found[12]
    assert abs(found[12] - empirical) < 0.1


def test_fair_coins_cost_one_bit_a_bit():
    codes = jax.random.bernoulli(jax.random.key(0), 0.5, (500, 16))
    fair = lambda z, t: product(evidence(Linear()(t))[:, None] * jnp.ones((1, 16)))  # noqa: E731
    bits = bound(fair, codes, 64).sum(0) / 16
    assert abs(float(bits.mean()) - 1) < 5 * float(bits.std()) / 500**0.5 + 1e-3


def test_a_random_term_estimates_the_bound():
    oracle, steps, n = Oracle.random(Linear()), 16, 10_000
    codes = jnp.broadcast_to(oracle.patterns[0], (n, 10))
    whole = float(bound(oracle, codes[:2000], steps).sum(0).mean())
    index = jax.random.randint(jax.random.key(3), (n,), 1, steps + 1)
    uniform = jax.random.uniform(jax.random.key(4), (n, 10))
    code_t = process.corrupt(uniform, codes, Linear()(index / steps))
    terms = steps * elbo.term(
        oracle(code_t, index / steps), codes ^ code_t, uniform, index, schedule=Linear(), steps=steps
    )
    assert abs(float(terms.mean()) - whole) < 5 * float(terms.std()) / n**0.5 + 0.05


def test_last_term_is_the_cross_entropy_of_the_data():
    """With one step the bound is −log₂ p(z_0 | z_1), and z_1 says nothing: the cost of independent bits."""
    oracle = Oracle.random(Linear())
    codes = oracle.patterns
    mean = np.asarray(oracle.weights @ oracle.patterns.astype(jnp.float32))
    expected = -np.log2(np.where(codes, mean, 1 - mean)).sum(1)
    np.testing.assert_allclose(bound(oracle, codes, 1)[0], expected, rtol=1e-3)
