"""The student's gradient by enumeration: log-odds of one bit given the others, and the derivative of the divergence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion.matching import conditional_log_odds, log_odds_of_one
from binlatent.diffusion.schedule import Linear
from tests.oracle import Oracle

K = 3
CODES = np.array(list(itertools.product([False, True], repeat=K)))
TRUTH = np.random.default_rng(0).dirichlet(np.ones(2**K)).astype(np.float32)


def noised(p, alpha):
    """The distribution of z_s, over the same codes, from that of z_0."""
    differ = (CODES[:, None] != CODES[None]).sum(-1)
    return ((1 + alpha) / 2) ** (K - differ) * ((1 - alpha) / 2) ** differ @ p


def log_odds(p):
    """log p(bit = 1 | the others) of every bit of every code, (2^K, K)."""
    logs = jnp.log(p)
    place = 2 ** np.arange(K)[::-1]
    index = np.arange(2**K)
    return jnp.stack([logs[index | b] - logs[index & ~b] for b in place], -1)


@pytest.mark.parametrize("s", [0.02, 0.3, 0.9])
def test_log_odds_of_a_noised_bit_are_exact(s):
    times = jnp.full(2**K, s)
    alpha = Linear()(times)
    prediction = Oracle(CODES, TRUTH, Linear())(jnp.asarray(CODES), times)
    found = conditional_log_odds(prediction, jnp.asarray(CODES), alpha)
    np.testing.assert_allclose(found, log_odds(noised(TRUTH, alpha[0])), atol=2e-3)


def test_the_derivative_of_the_divergence_is_a_difference_of_log_odds():
    means, alpha = jnp.array([0.2, 0.5, 0.9]), 0.6

    def student(means):
        return jnp.where(CODES, means, 1 - means).prod(-1)

    def divergence(means):
        ours, theirs = noised(student(means), alpha), noised(TRUTH, alpha)
        return (ours * jnp.log(ours / theirs)).sum()

    ours, theirs = noised(student(means), alpha), noised(TRUTH, alpha)
    expected = alpha * (ours[:, None] * (log_odds(ours) - log_odds(theirs))).sum(0)
    np.testing.assert_allclose(jax.grad(divergence)(means), expected, rtol=1e-4)


def test_log_odds_of_flips_become_those_log_odds_of_ones():
    assert np.array_equal(log_odds_of_one(jnp.array([2.0, 2.0]), jnp.array([True, False])), [-2.0, 2.0])
