"""Grids fitted to the likelihood: dynamic programming against enumeration, and what they do for an exact denoiser."""

import functools
import itertools

import jax
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import elbo
from binlatent.diffusion.schedule import Linear
from binlatent.machines.grids import cheapest_grids, cost, step_costs
from binlatent.sampling.sampler import Sampler
from tests.oracle import Oracle

TICKS = 32


def test_the_cheapest_grids_by_enumeration():
    n = 7
    costs = np.where(np.tri(n + 1, k=-1) > 0, np.random.default_rng(0).random((n + 1, n + 1)), np.inf)
    for steps, times in enumerate(cheapest_grids(costs, n), start=1):
        assert times[0] == 1 and times[-1] == 0 and len(times) == steps + 1
        others = itertools.combinations(range(n - 1, 0, -1), steps - 1)
        best = min(cost(costs, (1.0, *(i / n for i in between), 0.0)) for between in others)
        np.testing.assert_allclose(cost(costs, times), best)


@functools.cache
def of_the_oracle():
    oracle = Oracle.random(Linear(), seed=3)
    codes = oracle.patterns[jax.random.choice(jax.random.key(1), 12, (1000,), p=oracle.weights)]
    table = jax.jit(lambda keys, c: step_costs(oracle, keys, c, schedule=Linear(), ticks=TICKS))
    return oracle, codes, np.asarray(table(prng.per_example(jax.random.key(0), len(codes)), codes))


def test_the_cost_of_equal_steps_is_the_bound():
    oracle, codes, costs = of_the_oracle()
    keys = prng.per_example(jax.random.key(5), len(codes))
    terms = jax.jit(lambda k, c: elbo.negative_elbo(oracle, k, c, schedule=Linear(), steps=4))(keys, codes)
    quarter = TICKS // 4
    found = [costs[quarter * i, quarter * (i - 1)] for i in range(1, 5)]
    np.testing.assert_allclose(found, terms.mean(1), atol=0.2)
    assert np.isinf(costs[np.triu_indices(TICKS + 1)]).all()


@pytest.mark.parametrize("steps", [4, 8])
def test_fitted_steps_of_an_exact_denoiser_are_nearer_the_truth(steps):
    oracle, _, costs = of_the_oracle()

    def distance(times):
        sampler = Sampler(schedule=Linear(), steps=steps, times=times)
        keys = prng.per_example(jax.random.key(steps), 6000)
        return oracle.total_variation(jax.jit(lambda k: sampler(oracle, k, sampler.noise(k, (10,))))(keys))

    assert distance(cheapest_grids(costs, steps)[-1]) < 0.7 * distance(())
