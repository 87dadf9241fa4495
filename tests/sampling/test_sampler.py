import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.prediction import product
from binlatent.diffusion.schedule import Cosine, Linear
from binlatent.sampling.sampler import Sampler
from binlatent.typing import Prediction
from tests.oracle import Oracle, guess

DRAWS = 6_000


@jax.debug_key_reuse(False)
@pytest.mark.parametrize(
    ("last_step", "clamped", "passes", "places"),
    [
        ("sample", False, 1, (1.0, 0.4, 0.1, 0.0)),
        ("argmax", False, 1, (1.0, 0.4, 0.1, 0.0)),
        ("sample", True, 2, (1.0, 0.4, 0.1, 0.0)),
        ("argmax", True, 1, ()),
    ],
)
def test_it_is_the_loop_over_its_steps(last_step, clamped, passes, places):
    """Written out, with the keys of every draw: they must not change, and no two draws may share one."""
    sampler = Sampler(schedule=Cosine(), steps=3, posterior="plugin", last_step=last_step, times=places)
    keys = prng.per_example(jax.random.key(2), 4)
    known = jnp.array([[[True, False, False]]])

    def clamp(keys, code, alpha):
        return jnp.where(known, prng.uniform(keys, code.shape[1:]) < alpha, code)

    code = prng.uniform(prng.fold(keys, 3), (2, 3)) < 0.5
    assert np.array_equal(sampler.noise(keys, (2, 3)), code)
    options = {"passes": passes} | ({"clamp": clamp} if clamped else {})
    final, states = sampler(guess, keys, code, start=0.5, trajectory=True, **options)
    assert np.array_equal(sampler(guess, keys, code, start=0.5, **options), final)

    alpha, times = Cosine(), [0.5 * jnp.float32(place) for place in places or (1, 2 / 3, 1 / 3, 0)]
    expected = [clamp(prng.fold(keys, 4), code, alpha(times[0])) if clamped else code]
    for number in range(3 * passes):
        i, again = divmod(number, passes)
        step, prediction = prng.fold(keys, i + 5 * again), guess(expected[-1], jnp.full(4, times[i]))
        uniform, choice = prng.uniform(prng.fold(step, 0), (2, 3)), prng.uniform(prng.fold(step, 2), (2,))
        alphas = alpha(times[i]), alpha(times[i + 1])
        flips = process.draw(prediction, uniform, choice, prng.uniform(prng.fold(step, 4), ()), *alphas, "plugin")
        if i == 2 and last_step == "argmax":
            flips = process.likeliest(prediction)
        code = expected[-1] ^ flips
        code = clamp(prng.fold(step, 1), code, alphas[1]) if clamped else code
        if again < passes - 1:  # back to where the step began
            code = process.corrupt(prng.uniform(prng.fold(step, 3), (2, 3)), code, alphas[0] / alphas[1])
        expected.append(code)
    assert np.array_equal(states, jnp.stack(expected))
    assert np.array_equal(final, expected[-1])


@jax.debug_key_reuse(False)
@pytest.mark.parametrize("passes", [1, 2])
def test_steps_may_have_denoise_functions_of_their_own(passes):
    """As one function that looks at the time, and each is called (traced) for its steps alone."""
    sampler, keys = Sampler(schedule=Cosine(), steps=5), prng.per_example(jax.random.key(2), 4)
    code, seen = sampler.noise(keys, (2, 3)), []

    def other(z, t):
        seen.append(z.shape)
        prediction = guess(z, t)
        return prediction._replace(logits=-2 * prediction.logits)

    def both(z, t):
        pair = guess(z, t), other(z, t)
        return jax.tree.map(lambda a, b: jnp.where(((t > 0.4) & (t < 0.9))[0], b, a), *pair)

    expected = sampler(both, keys, code, trajectory=True, passes=passes)
    functions = [guess, other, other, guess, guess]  # at times 1, 0.8, 0.6, 0.4, 0.2
    seen.clear()
    found = sampler(functions, keys, code, trajectory=True, passes=passes)
    assert len(seen) == 1
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert np.array_equal(sampler(functions, keys, code, passes=passes), found[0])
    assert not np.array_equal(sampler(guess, keys, code, passes=passes), found[0])
    with pytest.raises(ValueError, match="2 denoise functions are given for 5 steps"):
        sampler(functions[:2], keys, code)


@functools.cache
def total_variation(posterior, steps, components=1):
    oracle = Oracle.random(Linear(), seed=3, components=components)
    sampler = Sampler(schedule=Linear(), steps=steps, posterior=posterior)
    keys = prng.per_example(jax.random.key(steps), DRAWS)
    codes = jax.jit(lambda k: sampler(oracle, k, sampler.noise(k, (10,))))(keys)
    return oracle.total_variation(codes)


def test_mixture_converges_to_the_truth():
    """The table of total variation: about 0.5, 0.2, 0.07, 0.03, 0.013, 0.006 for 4 … 256 steps, here plus sampling noise."""
    found = [total_variation("mixture", steps) for steps in (4, 8, 16, 32, 64, 256)]
    noise = Oracle.random(Linear(), seed=3).expected_noise(DRAWS)
    assert all(b < a for a, b in itertools.pairwise(found[:-1]))
    assert found[2] < 0.12
    assert found[-1] < 0.006 + 2 * noise


def test_plugin_stays_biased():
    assert total_variation("plugin", 256) > 0.1
    assert total_variation("plugin", 16) > 1.5 * total_variation("mixture", 16)


@pytest.mark.parametrize("steps", [2, 4, 8, 16])
def test_components_bring_few_steps_nearer_the_truth(steps):
    independent, some, exact = (total_variation("mixture", steps, components) for components in (1, 4, 12))
    assert exact < some < independent
    assert exact < 3 * Oracle.random(Linear(), seed=3).expected_noise(DRAWS)  # one component a pattern is the joint


@pytest.mark.parametrize("steps", [2, 8])
def test_components_of_the_code_tie_tokens_as_those_of_a_token_tie_its_bits(steps):
    """Ten tokens of one bit, tied by four components of the code, instead of one token of ten bits and four components."""
    oracle, sampler = Oracle.random(Linear(), seed=3, components=4), Sampler(schedule=Linear(), steps=steps)

    def tokens(code, t):
        prediction = oracle(code[..., 0], t)
        logits = jnp.swapaxes(prediction.logits, 1, 2)[..., None]
        return Prediction(logits, jnp.zeros(logits.shape[:-1]), prediction.weights)

    keys = prng.per_example(jax.random.key(steps), DRAWS)
    codes = jax.jit(lambda k: sampler(tokens, k, sampler.noise(k, (10, 1))))(keys)
    noise = oracle.expected_noise(DRAWS)
    assert abs(oracle.total_variation(codes[..., 0]) - total_variation("mixture", steps, 4)) < 2 * noise
    assert oracle.total_variation(codes[..., 0]) < total_variation("mixture", steps, 1) - 2 * noise


def test_same_key_same_code_whatever_the_batch():
    oracle = Oracle.random(Linear())
    sampler = Sampler(schedule=Linear(), steps=4)
    draw = lambda keys: sampler(oracle, keys, sampler.noise(keys, (10,)))  # noqa: E731
    keys = prng.per_example(jax.random.key(0), 12)
    assert np.array_equal(draw(keys)[5:8], draw(keys[5:8]))


def test_a_denoiser_that_knows_the_code_arrives_there():
    sampler = Sampler(schedule=Cosine(), steps=7)
    keys = prng.per_example(jax.random.key(0), 3)
    code = jax.random.bernoulli(jax.random.key(1), 0.5, (3, 2, 2, 4))
    sure = lambda z, t: product(jnp.where(z ^ code, 40.0, -40.0))  # noqa: E731
    final, states = sampler(sure, keys, sampler.noise(keys, (2, 2, 4)), trajectory=True)
    assert np.array_equal(final, code)
    assert states.shape == (8, 3, 2, 2, 4)
    assert np.array_equal(states[-1], code)


def test_argmax_takes_the_likelier_bit_at_the_last_step():
    sampler = Sampler(schedule=Linear(), steps=1, last_step="argmax")
    keys = prng.per_example(jax.random.key(0), 64)
    code = sampler.noise(keys, (8,))
    sure = product(jnp.where(code, 0.4, -0.4))  # log-odds 0.4 for z_0 = 0, everywhere
    assert not sampler(lambda z, t: sure, keys, code).any()
    sampled = Sampler(schedule=Linear(), steps=1)(lambda z, t: sure, keys, code)
    assert 0.2 < float(sampled.mean()) < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"posterior": "x"}, "mixture, plugin"),
        ({"last_step": "x"}, "sample, argmax"),
        ({"steps": 2, "times": (1.0, 0.0)}, "2 times are given for 2 steps"),
    ],
)
def test_wrong_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(schedule=Linear(), **options)
