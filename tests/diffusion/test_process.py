import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.schedule import SCHEDULES, schedule


def forward_probability(bit, origin, alpha):
    """q(bit | origin) from the definition: keep with probability α, else a fair coin."""
    return alpha * (bit == origin) + (1 - alpha) / 2


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.25), (0.25, 0.5), (0.1, 1.0), (0.0, 1.0), (0.50, 0.51)])
def test_posterior_is_bayes_by_enumeration(name, s, t):
    alpha = schedule(name)
    alpha_s, alpha_t = float(alpha(jnp.float32(s))), float(alpha(jnp.float32(t)))
    for z_t, z_0 in itertools.product((0, 1), (0, 1)):
        joint = [
            forward_probability(z_t, z_s, alpha_t / alpha_s) * forward_probability(z_s, z_0, alpha_s) for z_s in (0, 1)
        ]
        found = process.posterior(jnp.full((1, 1), bool(z_t)), jnp.full((1, 1), bool(z_0)), alpha_t, alpha_s)
        np.testing.assert_allclose(found.one[0, 0], joint[1] / sum(joint), atol=1e-6)
        np.testing.assert_allclose(found.zero[0, 0], joint[0] / sum(joint), atol=1e-6)


def test_mixture_is_the_law_of_total_probability():
    logits = jnp.array([[-3.0, -0.5, 0.0, 2.0]])
    code_t = jnp.array([[True, False, True, False]])
    m = 1 / (1 + np.exp(np.where(code_t, 1, -1) * np.asarray(logits)))
    found = process.reverse(code_t, logits, 0.3, 0.6, "mixture")
    one, zero = (process.posterior(code_t, jnp.full((1, 4), v), 0.3, 0.6).one for v in (True, False))
    np.testing.assert_allclose(found.one, m * one + (1 - m) * zero, atol=1e-6)
    np.testing.assert_allclose(found.one + found.zero, np.ones((1, 4)), atol=1e-6)


def test_plugin_puts_the_soft_estimate_in_place_of_the_data():
    logits, code_t = jnp.array([[1.5]]), jnp.array([[False]])
    m = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(
        process.reverse(code_t, logits, 0.3, 0.6, "plugin").one, process.posterior(code_t, m, 0.3, 0.6).one, atol=1e-6
    )


@pytest.mark.parametrize("kind", process.POSTERIORS)
def test_a_certain_estimate_gives_the_exact_posterior(kind):
    code_t, code_0 = jnp.array([[True, False, True, False]]), jnp.array([[True, True, False, False]])
    logits = jnp.where(code_t ^ code_0, 50.0, -50.0)
    found = process.reverse(code_t, logits, 0.2, 0.7, kind)
    np.testing.assert_allclose(found.one, process.posterior(code_t, code_0, 0.2, 0.7).one, atol=1e-6)


def test_two_forward_steps_compose():
    n, alpha_s, alpha_ts = 400_000, 0.7, 0.4
    keys = prng.per_example(jax.random.key(0), 2)
    code = jnp.ones((1, n), bool)
    one = process.corrupt(prng.uniform(keys[:1], (n,)), code, alpha_s)
    two = process.corrupt(prng.uniform(keys[1:], (n,)), one, alpha_ts)
    expected = float(process.marginal(code[:, :1], alpha_s * alpha_ts).one[0, 0])
    assert abs(float(two.mean()) - expected) < 5 * 0.5 / n**0.5


def test_endpoints_of_the_forward_process():
    keys = prng.per_example(jax.random.key(1), 2)
    uniform = prng.uniform(keys, (50_000,))
    code = jnp.stack([jnp.ones(50_000, bool), jnp.zeros(50_000, bool)])
    assert np.array_equal(process.corrupt(uniform, code, 1.0), code)
    np.testing.assert_allclose(process.corrupt(uniform, code, 0.0).mean(1), [0.5, 0.5], atol=0.012)


def test_alpha_may_differ_by_example():
    code = jnp.ones((2, 3, 4), bool)
    flipped = process.corrupt(jnp.full((2, 3, 4), 0.3), code, jnp.array([1.0, 0.0]))
    assert flipped[0].all()
    assert not flipped[1].any()


def test_kl_keeps_its_digits_for_close_steps():
    """For s → t the KL of a wrong estimate is of order t − s: it must not drown in float32."""
    code_t = code_0 = jnp.array([[True]])
    t, s = 0.5, 0.5 - 1e-4
    true = process.posterior(code_t, code_0, 1 - t, 1 - s)
    modelled = process.reverse(code_t, jnp.array([[0.3]]), 1 - t, 1 - s, "mixture")
    exact = np.float64(modelled.zero[0, 0]) - np.float64(true.zero[0, 0])
    exact += np.float64(true.zero[0, 0]) * np.log(np.float64(true.zero[0, 0]) / np.float64(modelled.zero[0, 0]))
    np.testing.assert_allclose(process.kl(true, modelled)[0, 0], exact, rtol=0.01, atol=2e-7)


def test_unknown_posterior():
    with pytest.raises(ValueError, match="mixture, plugin"):
        process.reverse(jnp.zeros((1, 1), bool), jnp.zeros((1, 1)), 0.1, 0.2, "exact")


def test_plugin_equals_the_release(reference):
    table = np.load(f"{reference}/posterior.npz")
    names = {"linear": "linear", "cos": "cosine", "sigmoid": "sigmoid"}
    cases = {key.rsplit("/", 1)[0] for key in table}
    assert cases
    for case in cases:
        kind, interval = case.split("/")
        t, s = (int(v) for v in interval.split("-"))
        alpha = schedule(names[kind])
        code_t = jnp.asarray(table[f"{case}/x_t"]).astype(bool)
        alpha_t, alpha_s = alpha(jnp.float32(t / 64)), alpha(jnp.float32(s / 64))
        found = process.posterior(code_t, jnp.asarray(table[f"{case}/p0"]), alpha_t, alpha_s)
        np.testing.assert_allclose(found.one, table[f"{case}/posterior"], atol=1e-6)
