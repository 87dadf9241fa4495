import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.prediction import marginal, product, untied
from binlatent.diffusion.schedule import SCHEDULES, schedule
from binlatent.typing import Prediction
from tests.oracle import all_codes


def forward_probability(bit, origin, alpha):
    """q(bit | origin) from the definition: keep with probability α, else a fair coin."""
    return alpha * (bit == origin) + (1 - alpha) / 2


def one(flips, code_t):
    """P(z_s = 1) of flips of z_t."""
    return np.where(code_t, np.exp(flips.stay), np.exp(flips.flip))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.25), (0.25, 0.5), (0.1, 1.0), (0.0, 1.0), (0.50, 0.51)])
def test_posterior_is_bayes_by_enumeration(name, s, t):
    alpha = schedule(name)
    alpha_s, alpha_t = float(alpha(jnp.float32(s))), float(alpha(jnp.float32(t)))
    for z_t, z_0 in itertools.product((0, 1), (0, 1)):
        joint = [
            forward_probability(z_t, z_s, alpha_t / alpha_s) * forward_probability(z_s, z_0, alpha_s) for z_s in (0, 1)
        ]
        found = process.posterior(jnp.full((1, 1), z_t != z_0), alpha_t, alpha_s)
        np.testing.assert_allclose(one(found, z_t)[0, 0], joint[1] / sum(joint), atol=1e-6)
        np.testing.assert_allclose(np.exp(found.flip) + np.exp(found.stay), 1.0, atol=1e-6)


def test_mixture_is_the_law_of_total_probability():
    logits = jnp.array([[-3.0, -0.5, 0.0, 2.0]])
    m = 1 / (1 + np.exp(-np.asarray(logits)))
    found = process.reverse(logits, 0.3, 0.6, "mixture")
    differs, equals = (process.posterior(jnp.full((1, 4), v), 0.3, 0.6) for v in (True, False))
    np.testing.assert_allclose(np.exp(found.flip), m * np.exp(differs.flip) + (1 - m) * np.exp(equals.flip), atol=1e-6)
    np.testing.assert_allclose(np.exp(found.flip) + np.exp(found.stay), np.ones((1, 4)), atol=1e-6)


@pytest.mark.parametrize("kind", process.POSTERIORS)
def test_a_certain_estimate_gives_the_exact_posterior(kind):
    flipped = jnp.array([[True, False, True, False]])
    found = process.reverse(jnp.where(flipped, 50.0, -50.0), 0.2, 0.7, kind)
    np.testing.assert_allclose(np.exp(found.flip), np.exp(process.posterior(flipped, 0.2, 0.7).flip), atol=1e-6)


def test_plugin_counts_the_evidence_of_a_calibrated_estimate_twice_and_that_of_a_leave_one_out_one_once():
    g, alpha_t = jnp.array([[-1.0, 0.0, 2.0]]), 0.3
    f = g + np.log((1 - alpha_t) / (1 + alpha_t))
    exact = process.reverse(f, alpha_t, 0.6, "mixture")
    np.testing.assert_allclose(process.reverse(g, alpha_t, 0.6, "plugin").flip, exact.flip, atol=1e-6)
    assert np.all(process.reverse(f, alpha_t, 0.6, "plugin").flip < exact.flip - 0.02)


def test_two_forward_steps_compose():
    n, alpha_s, alpha_ts = 400_000, 0.7, 0.4
    keys = prng.per_example(jax.random.key(0), 2)
    code = jnp.ones((1, n), bool)
    first = process.corrupt(prng.uniform(keys[:1], (n,)), code, alpha_s)
    second = process.corrupt(prng.uniform(keys[1:], (n,)), first, alpha_ts)
    expected = forward_probability(1, 1, alpha_s * alpha_ts)
    assert abs(float(second.mean()) - expected) < 5 * 0.5 / n**0.5


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
    t, s, m = 0.5, 0.5 - 1e-4, 1 / (1 + np.exp(-0.3))
    a_t, a_s = 1 - t, 1 - s
    differs, equals = (
        (1 - a_t / a_s) / 2 * (1 + sign * a_s) / (1 - sign * a_t) for sign in (1, -1)
    )  # P(z_s ≠ z_t) where z_0 does, and where it does not
    p = m * differs + (1 - m) * equals
    exact = equals * np.log(equals / p) + (1 - equals) * np.log((1 - equals) / (1 - p))
    kl = process.marginal_divergence(product(jnp.array([[0.3]])), jnp.array([[False]]), 1 - t, 1 - s)
    np.testing.assert_allclose(kl[0, 0], exact, rtol=0.01, atol=2e-7)


@pytest.mark.parametrize("t", [1e-9, 1e-4, 1 / 128, 0.3, 1.0])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_divergences_and_their_gradients_are_finite_for_sure_estimates(t, part):
    flipped = jnp.array([[True, False, True, False]])
    alpha_t, alpha_s = 1 - jnp.float32([t]), 1 - jnp.float32([t * part])

    def total(logits):
        joint = process.divergence(product(logits), flipped, jnp.full((1, 4), 0.5), alpha_t, alpha_s)
        return joint.sum() + process.marginal_divergence(product(logits), flipped, alpha_t, alpha_s).sum()

    for logits in ([[100.0, 100.0, -100.0, -100.0]], [[0.0, 1.0, 2.0, -30.0]]):
        value, gradient = jax.value_and_grad(total)(jnp.array(logits))
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_at_time_0_the_divergence_is_the_cross_entropy():
    """Also where it is far beyond what float32 probabilities hold, with its gradient."""
    logits, flipped = jnp.array([[-100.0, -100.0, 0.5]]), jnp.array([[True, False, True]])
    found = process.divergence(product(logits), flipped, jnp.full((1, 3), 0.5), 0.9, 1.0)
    np.testing.assert_allclose(found, [100.0 + np.log1p(np.exp(-0.5))], rtol=1e-5)
    gradient = jax.grad(lambda x: process.marginal_divergence(product(x), flipped, 0.9, 1.0).sum())(logits)
    np.testing.assert_allclose(gradient[0, :2], [-1.0, 0.0], atol=1e-5)


# --- mixtures of products ---

WEIGHTS = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
COMPONENTS = Prediction(2 * jax.random.normal(jax.random.key(5), (1, 3, 3)), WEIGHTS + 4.0)  # normalised where used


def repeated(prediction, n):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape[1:])), prediction)


def _joint(alpha_t, alpha_s, kind="mixture"):
    """p(flips of three bits), by enumeration from the definition."""
    parts = np.exp(process.reverse(COMPONENTS.logits, alpha_t, alpha_s, kind).flip)[0]
    codes = all_codes(3)
    return codes, (np.exp(WEIGHTS)[0][None] * np.where(codes[:, None], parts, 1 - parts).prod(-1)).sum(-1)


@pytest.mark.parametrize("kind", process.POSTERIORS)
def test_draws_of_a_mixture_have_its_joint_distribution(kind):
    n = 40_000
    uniform, choice = jax.random.uniform(jax.random.key(0), (n, 3)), jax.random.uniform(jax.random.key(1), (n,))
    many = repeated(COMPONENTS, n)
    drawn = np.asarray(process.draw(many, uniform, choice, jnp.zeros(n), 0.3, 0.8, kind))
    codes, expected = _joint(0.3, 0.8, kind)
    found = (drawn[:, None] == codes[None]).all(-1).mean(0)
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / n**0.5)


def test_divergence_of_a_mixture_is_the_kl_by_enumeration():
    n, flipped = 60_000, jnp.array([[True, False, True]])
    codes, p = _joint(0.3, 0.8)
    true = np.exp(process.posterior(flipped, 0.3, 0.8).flip)
    q = np.where(codes, true, 1 - true).prod(-1)
    many = repeated(COMPONENTS, n)
    uniform = jax.random.uniform(jax.random.key(0), (n, 3))
    found = np.asarray(process.divergence(many, jnp.broadcast_to(flipped, (n, 3)), uniform, 0.3, 0.8))
    assert abs(found.mean() - (q * np.log(q / p)).sum()) < 4 * found.std() / n**0.5 + 1e-4


def test_log_probability_of_a_mixture_by_enumeration():
    codes, p = _joint(0.3, 1.0)  # at s = 0 the reverse step is the estimate
    found = process.log_probability(repeated(COMPONENTS, 8), jnp.asarray(codes))
    np.testing.assert_allclose(np.exp(found), p, rtol=1e-4)


def test_one_component_and_equal_components_are_independent_bits():
    logits, flipped = jax.random.normal(jax.random.key(0), (5, 2, 4)), jnp.arange(40).reshape(5, 2, 4) % 3 == 0
    uniform, choice = jax.random.uniform(jax.random.key(1), (5, 2, 4)), jax.random.uniform(jax.random.key(2), (5, 2))
    single = product(logits)
    drawn = process.draw(single, uniform, choice, jnp.zeros(5), 0.3, 0.8, "mixture")
    assert np.array_equal(drawn, uniform < jnp.exp(process.reverse(logits, 0.3, 0.8, "mixture").flip))
    found = process.divergence(single, flipped, uniform, 0.3, 0.8)
    np.testing.assert_allclose(found, process.marginal_divergence(single, flipped, 0.3, 0.8).sum((1, 2)), atol=1e-6)
    equal = Prediction(jnp.repeat(single.logits, 3, -2), jax.random.normal(jax.random.key(3), (5, 2, 3)))
    np.testing.assert_allclose(process.divergence(equal, flipped, uniform, 0.3, 0.8), found, atol=1e-5)


# three components of the code, in each two components of each of two tokens of two bits
TIED = Prediction(
    2 * jax.random.normal(jax.random.key(6), (1, 2, 6, 2)),
    jax.random.normal(jax.random.key(7), (1, 2, 6)),
    jnp.log(jnp.array([[0.2, 0.5, 0.3]])) + 4.0,
)


def _tied(alpha_t, alpha_s):
    """Codes (16, 2, 2) of flips and p of each, by enumeration over components from the definition."""
    codes = all_codes(4).reshape(16, 2, 2)
    flip = np.exp(process.reverse(TIED.logits, alpha_t, alpha_s, "mixture").flip)[0].reshape(2, 3, 2, 2)
    pi = np.exp(TIED.weights)[0].reshape(2, 3, 2)
    pi = pi / pi.sum(-1, keepdims=True)
    p = np.zeros(16)
    for g, share in enumerate((0.2, 0.5, 0.3)):
        for c in itertools.product(range(2), repeat=2):  # a component of each token
            parts = np.stack([flip[token, g, c[token]] for token in range(2)])  # (token, bit)
            bits = np.where(codes, parts, 1 - parts).prod((1, 2))
            p += share * pi[0, g, c[0]] * pi[1, g, c[1]] * bits
    return codes, p


def test_components_of_the_code_by_enumeration():
    codes, p = _tied(0.3, 1.0)  # at s = 0 the reverse step is the estimate
    assert abs(p.sum() - 1) < 1e-6
    np.testing.assert_allclose(np.exp(process.log_probability(repeated(TIED, 16), jnp.asarray(codes))), p, rtol=1e-4)
    m = (p[:, None, None] * codes).sum(0)
    np.testing.assert_allclose(marginal(TIED)[0], np.log(m / (1 - m)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(marginal(untied(TIED)), marginal(TIED), rtol=1e-4, atol=1e-6)


def test_draws_and_divergence_with_components_of_the_code():
    n, (codes, p) = 60_000, _tied(0.3, 0.8)
    uniform, choice, code_choice = (
        jax.random.uniform(jax.random.key(i), (n, *shape)) for i, shape in enumerate(((2, 2), (2,), ()))
    )
    drawn = np.asarray(process.draw(repeated(TIED, n), uniform, choice, code_choice, 0.3, 0.8, "mixture"))
    found = (drawn[:, None] == codes[None]).all((2, 3)).mean(0)
    np.testing.assert_allclose(found, p, atol=4 * 0.5 / n**0.5)
    flipped = jnp.array([[[True, False], [True, True]]])
    true = np.exp(process.posterior(flipped, 0.3, 0.8).flip)
    q = np.where(codes, true, 1 - true).prod((1, 2))
    nats = np.asarray(process.divergence(repeated(TIED, n), repeated(flipped, n), uniform, 0.3, 0.8))
    assert abs(nats.mean() - (q * np.log(q / p)).sum()) < 4 * nats.std() / n**0.5 + 1e-4


def test_likeliest_is_within_the_likeliest_component_of_the_code():
    logits = jnp.array([[[1.0, -1.0], [-1.0, 1.0], [2.0, 2.0], [-3.0, -3.0]]])[:, None]  # one token, 2 × 2 components
    prediction = Prediction(logits, jnp.array([[[9.0, 8.0, 1.0, 2.0]]]), jnp.array([[0.0, 1.0]]))
    assert process.likeliest(prediction).tolist() == [[[False, False]]]
    assert process.likeliest(prediction._replace(code_weights=jnp.array([[1.0, 0.0]]))).tolist() == [[[True, False]]]


def test_likeliest_is_of_the_likeliest_component():
    prediction = Prediction(jnp.array([[[1.0, -1.0], [-1.0, 1.0]]]), jnp.array([[0.1, 0.2]]))
    assert process.likeliest(prediction).tolist() == [[False, True]]


def test_unknown_posterior():
    with pytest.raises(ValueError, match="mixture, plugin"):
        process.reverse(jnp.zeros((1, 1)), 0.1, 0.2, "exact")


def test_plugin_equals_the_release(reference):
    table = np.load(f"{reference}/posterior.npz")
    names = {"linear": "linear", "cos": "cosine", "sigmoid": "sigmoid"}
    cases = {key.rsplit("/", 1)[0] for key in table}
    assert cases
    for case in cases:
        kind, interval = case.split("/")
        t, s = (int(v) for v in interval.split("-"))
        alpha = schedule(names[kind])
        code_t, p0 = table[f"{case}/x_t"] > 0.5, table[f"{case}/p0"]
        alpha_t, alpha_s = alpha(jnp.float32(t / 64)), alpha(jnp.float32(s / 64))
        flips = jnp.asarray(np.where(code_t, -1, 1) * (np.log(p0) - np.log1p(-p0)))
        found = process.reverse(flips, alpha_t, alpha_s, "plugin")
        np.testing.assert_allclose(one(found, code_t), table[f"{case}/posterior"], atol=2e-6)
