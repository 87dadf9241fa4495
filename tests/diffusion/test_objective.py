import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.diffusion.objective import Objective, low_discrepancy_times
from binlatent.diffusion.prediction import PARAMETRIZATIONS, evidence, product
from binlatent.diffusion.schedule import SCHEDULES, Linear, schedule
from binlatent.typing import Prediction

CODE = jnp.array([[True, False, True, True]])
CODE_T = jnp.array([[False, False, True, True]])  # the first bit is flipped
LOGITS = jnp.array([[1.0, -2.0, 0.5, -1.0]])
T = jnp.array([0.25])


def terms(s=None, **options):
    options = {"parametrization": "flip"} | options
    return Objective(schedule=Linear(), **options)(product(LOGITS), CODE, CODE_T, T, s)


def softplus(x):
    return np.log1p(np.exp(x))


CROSS_ENTROPY = np.array([softplus(-1.0), softplus(-2.0), softplus(0.5), softplus(-1.0)])


def test_cross_entropy_on_flips():
    found = terms()
    np.testing.assert_allclose(found["loss"], [CROSS_ENTROPY.mean()], rtol=1e-6)
    np.testing.assert_allclose(found["flip_accuracy"], [0.75])


def test_balanced_weights():
    balanced = (CROSS_ENTROPY * np.array([0.75, 0.25, 0.25, 0.25])).mean()
    np.testing.assert_allclose(
        terms(weighting="balanced", parametrization="leave_one_out")["loss"], [balanced], rtol=1e-6
    )


def test_auxiliary_term_is_zero_for_a_certain_and_right_estimate():
    objective = Objective(schedule=Linear(), auxiliary=1.0)
    right, s = product(jnp.where(CODE ^ CODE_T, 60.0, -60.0)), jnp.array([0.2])
    np.testing.assert_allclose(objective(right, CODE, CODE_T, T, s)["auxiliary"], [0.0], atol=1e-6)
    assert float(terms(s, auxiliary=1.0)["auxiliary"][0]) > 1e-3
    with pytest.raises(ValueError, match="needs s"):
        terms(auxiliary=1.0)


def test_auxiliary_term_is_a_rate_with_a_cap():
    near, nearer = (float(terms(T - d, auxiliary=1.0)["auxiliary"][0]) for d in (0.03, 0.016))
    np.testing.assert_allclose(near, nearer, rtol=0.1)  # KL falls in proportion to t − s
    assert float(terms(T - 1e-3, auxiliary=1.0)["auxiliary"][0]) < 0.1 * near  # the cap
    found = terms(T - 0.03, auxiliary=0.5)
    np.testing.assert_allclose(found["loss"], CROSS_ENTROPY.mean() + 0.5 * found["auxiliary"], rtol=1e-5)
    # at s = 0 it is the cross-entropy over t
    np.testing.assert_allclose(terms(0 * T, auxiliary=1.0)["auxiliary"], CROSS_ENTROPY.mean() / T, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("components", [1, 2])
def test_loss_and_gradient_are_finite(name, parametrization, components):
    """For t from 0 to 1 and logits of ±100, with the auxiliary term at s = 0 and near t."""
    objective = Objective(schedule=schedule(name), auxiliary=1.0, parametrization=parametrization)
    t = jnp.repeat(jnp.array([0.0, 1e-9, 1e-4, 1 / 128, 0.5, 1.0]), 2)
    s = t * jnp.tile(jnp.array([0.0, 0.999]), 6)
    code, code_t = jnp.zeros((12, 4), bool), jnp.broadcast_to(jnp.array([[True, True, False, False]]), (12, 4))
    logits = jnp.broadcast_to(100 * jnp.array([[[1.0, -1.0, 1.0, -1.0]]]), (12, components, 4))

    def loss(output):
        return objective(output, code, code_t, t, s)["loss"].sum()

    value, gradient = jax.value_and_grad(loss)(Prediction(logits, jnp.zeros((12, components))))
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient.logits).max()) > 0.1  # a sure and wrong estimate is pulled back


def test_the_channel_s_evidence_is_added_to_what_the_network_gives():
    g = product(LOGITS)
    found = Objective(schedule=Linear())(g, CODE, CODE_T, T)
    f = product(LOGITS + np.log(0.25 / 1.75))
    expected = Objective(schedule=Linear(), parametrization="flip")(f, CODE, CODE_T, T)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(evidence(jnp.array([0.5, 0.0])), [np.log(1 / 3), 0], atol=1e-7)


def test_loss_of_a_mixture_is_its_log_likelihood_a_bit():
    logits = jnp.array([[[1.0, -2.0, 0.5, -1.0], [0.0, 3.0, -1.0, 0.0]]])
    weights = jnp.array([[0.3, 1.0]])
    found = Objective(schedule=Linear(), parametrization="flip")(Prediction(logits, weights), CODE, CODE_T, T)["loss"]
    p = 1 / (1 + np.exp(-np.where(CODE ^ CODE_T, 1, -1)[:, None] * np.asarray(logits)))
    pi = np.exp(weights) / np.exp(weights).sum()
    np.testing.assert_allclose(found, -np.log((pi * p.prod(-1)).sum(-1)) / 4, rtol=1e-5)
    with pytest.raises(ValueError, match="components to 1"):
        Objective(schedule=Linear(), weighting="balanced")(Prediction(logits, weights), CODE, CODE_T, T)


def test_times_of_a_discrete_chain():
    objective = Objective(schedule=Linear(), total_steps=4)
    t = objective.times(jnp.array([0.0, 0.1, 0.25, 0.6, 0.99]))
    np.testing.assert_allclose(t, [0.25, 0.25, 0.25, 0.75, 1.0])
    np.testing.assert_allclose(objective.earlier(t, jnp.zeros(5)), [0, 0, 0, 0.5, 0.75])
    continuous = Objective(schedule=Linear())
    np.testing.assert_array_equal(continuous.times(t), t)
    np.testing.assert_allclose(continuous.earlier(t, jnp.full(5, 0.5)), t / 2)


def test_times_are_spread_over_the_batch():
    t = np.sort(np.asarray(low_discrepancy_times(jax.random.key(0), 64)))
    assert t[0] >= 0
    assert t[-1] < 1
    np.testing.assert_allclose(np.diff(t), 1 / 64, atol=1e-6)


def test_gradient_vanishes_at_the_true_posterior():
    """The loss is proper: at the true flip probability its expected gradient is zero."""
    p = 0.3
    logit = jnp.full((1, 1), np.log(p / (1 - p)))
    objective = Objective(schedule=Linear(), parametrization="flip")

    def expected(logit):
        logit = product(logit)
        flipped = objective(logit, jnp.ones((1, 1), bool), jnp.zeros((1, 1), bool), T)["loss"][0]
        kept = objective(logit, jnp.ones((1, 1), bool), jnp.ones((1, 1), bool), T)["loss"][0]
        return p * flipped + (1 - p) * kept

    np.testing.assert_allclose(jax.grad(expected)(logit), [[0.0]], atol=1e-6)


def test_times_wrap_around_and_depend_on_the_key():
    t = [np.asarray(low_discrepancy_times(jax.random.key(i), 4)) for i in (0, 1)]
    offset = float(jax.random.uniform(jax.random.key(0)))
    np.testing.assert_allclose(t[0], (offset + np.arange(4) / 4) % 1, rtol=1e-6)
    assert not np.allclose(np.sort(t[0]), np.sort(t[1]))


def test_the_terms_are_functions_of_the_network_s_output_in_any_type():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), product(LOGITS))
    found = Objective(schedule=Linear(), parametrization="flip")(half, CODE, CODE_T, T)
    assert found["loss"].dtype == jnp.float32
    np.testing.assert_allclose(found["loss"], [CROSS_ENTROPY.mean()], rtol=1e-5)
    assert set(found) == {"loss", "flip_cross_entropy", "flip_accuracy"}


def test_corruption_follows_the_schedule():
    code, t = jnp.ones((2, 4000), bool), jnp.array([0.25, 1.0])
    found = Objective(schedule=schedule("cosine")).corrupt(jax.random.uniform(jax.random.key(0), (2, 4000)), code, t)
    alpha = (1 + np.cos(np.pi * np.array([0.25, 1.0]))) / 2
    np.testing.assert_allclose(found.mean(1), (1 + alpha) / 2, atol=0.03)


def test_terms_are_means_over_tokens_and_bits():
    """Two examples of two tokens of two bits; the balanced shares are of an example."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 2, 2)).astype(np.float32)
    flipped = np.array([[[True, False], [False, False]], [[True, True], [True, False]]])
    t = jnp.array([0.3, 0.6])
    entropy = softplus(np.where(flipped, -logits, logits))
    code = jnp.asarray(rng.random((2, 2, 2)) < 0.5)
    found = Objective(schedule=Linear(), parametrization="flip")(product(jnp.asarray(logits)), code, code ^ flipped, t)
    np.testing.assert_allclose(found["flip_cross_entropy"], entropy.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["flip_accuracy"], ((logits > 0) == flipped).mean((1, 2)))
    share = flipped.mean((1, 2), keepdims=True)
    found = Objective(schedule=Linear(), weighting="balanced")(product(jnp.asarray(logits)), code, code ^ flipped, t)
    expected = (entropy * np.where(flipped, 1 - share, share)).mean((1, 2))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{"auxiliary": -0.1}, {"total_steps": -1}])
def test_negative_numbers(options):
    with pytest.raises(ValueError, match="at least 0 is expected"):
        Objective(schedule=Linear(), **options)


def test_unknown_weighting():
    with pytest.raises(ValueError, match="uniform, balanced"):
        terms(weighting="focal")
    with pytest.raises(ValueError, match="leave_one_out, flip"):
        terms(parametrization="x0")
    with pytest.raises(ValueError, match="leave-one-out log-odds"):
        terms(weighting="balanced")
