import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.condition import Condition
from binlatent.nets.official_denoiser import OfficialDenoiser, time_features

TINY = {"code_shape": (2, 3, 4), "width": 16, "depth": 2, "heads": 2, "total_steps": 64}
CODE = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 2, 3, 4))
T = jnp.array([0.25, 0.5, 1.0])


def _logits(net):
    """Flip log-odds (b, y, x, k) of its one component, compiled."""
    return jax.jit(lambda *a: net.apply(*a).logits[..., 0, :])


def _net(condition=None, **options):
    net = OfficialDenoiser(**{**TINY, **options})
    abstract = jax.eval_shape(net.init, jax.random.key(1), CODE, T, condition)
    rng = np.random.default_rng(0)
    # biases and gains as well, so that nothing is hidden by a zero
    variables = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), abstract)
    return net, variables, _logits(net)


def test_few_steps_use_only_times_of_training():
    _, variables, apply = _net()
    for i in (1, 5, 16):  # 16 steps of a model of 64
        t = jnp.full(3, i / 16)
        nearby = t + jnp.array([0.0, 0.4, -0.4]) / 64
        np.testing.assert_array_equal(apply(variables, CODE, t), apply(variables, CODE, nearby.clip(0, 1)))
    # data is time 1 as well: there is no time 0
    np.testing.assert_array_equal(apply(variables, CODE, jnp.zeros(3)), apply(variables, CODE, jnp.full(3, 1 / 64)))


def test_official_sample_steps_change_the_function_unless_they_agree():
    net, variables, apply = _net()
    known = apply(variables, CODE, T)
    same, other = (_logits(net.clone(official_sample_steps=s))(variables, CODE, T) for s in (64, 16))
    np.testing.assert_array_equal(same, known)
    assert jnp.abs(other - known).max() > 1e-3
    # the largest time of training is (64 − 1)/64 · 4000; with 16 steps the network would see four times that
    np.testing.assert_allclose(
        time_features(jnp.array([64.0]), 16, 16), time_features(jnp.array([253.0]), 64, 16), atol=1e-3
    )


def test_a_model_of_z0_returns_flips():
    net, variables, apply = _net()
    z0 = _logits(net.clone(predict="z0"))(variables, CODE, T)
    np.testing.assert_allclose(jnp.where(CODE, -z0, z0), apply(variables, CODE, T), rtol=1e-5)


TOKENS = jax.random.normal(jax.random.key(5), (3, 4, 6))


@pytest.mark.parametrize(
    "condition, options",
    [
        (Condition(label=jnp.array([1, 4, 2])), {"num_classes": 5}),
        (Condition(vector=jax.random.normal(jax.random.key(5), (3, 6))), {"condition_width": 6}),
        (Condition(tokens=TOKENS), {"condition_width": 6, "cross_attention": True}),
    ],
)
def test_masked_conditions_have_no_effect(condition, options):
    _, variables, apply = _net(condition, **options)
    full, none = apply(variables, CODE, T, condition), apply(variables, CODE, T)
    assert jnp.abs(full - none).max() > 1e-3
    mixed = apply(variables, CODE, T, condition, jnp.array([False, True, False]))
    np.testing.assert_allclose(mixed, jnp.stack([none[0], full[1], none[2]]), atol=2e-6)
    # every parameter that training could need exists without a condition too
    alone = jax.eval_shape(OfficialDenoiser(**TINY, **options).init, jax.random.key(1), CODE, T)["params"]
    assert jax.tree.structure(alone) == jax.tree.structure(variables["params"])


def test_padding_of_a_text_changes_nothing():
    mask = jnp.array([[True, True, False, False], [True] * 4, [True, False, False, False]])
    given = Condition(tokens=TOKENS, token_mask=mask)
    _, variables, apply = _net(given, condition_width=6, cross_attention=True)
    other = given.replace(tokens=jnp.where(mask[..., None], TOKENS, 7.0))
    assert np.array_equal(apply(variables, CODE, T, given), apply(variables, CODE, T, other))
    alone = Condition(tokens=TOKENS[:, :2], token_mask=mask[:, :2])
    np.testing.assert_allclose(apply(variables, CODE, T, given)[0], apply(variables, CODE, T, alone)[0], atol=1e-5)


def test_bfloat16_is_near():
    net, variables, apply = _net()
    half = _logits(net.clone(dtype=jnp.bfloat16))(variables, CODE, T)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, apply(variables, CODE, T), atol=0.15)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"heads": 3}, r"width 16 must be a multiple of heads \(3\)"),
        ({"predict": "x0"}, "no prediction 'x0'"),
        ({"num_classes": 2, "condition_width": 3}, "both set"),
        ({"cross_attention": True}, "needs condition_width"),
        ({"total_steps": 0}, "total_steps is 0"),
    ],
)
def test_contradicting_fields_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OfficialDenoiser(**{**TINY, **options})


def test_wrong_inputs_are_refused():
    net, variables, _ = _net()
    with pytest.raises(ValueError, match="codes have shape"):
        net.apply(variables, CODE[..., :2], T)
    with pytest.raises(ValueError, match="trained without one"):
        net.apply(variables, CODE, T, Condition(label=jnp.zeros(3, jnp.int32)))
    net, variables, _ = _net(Condition(vector=jnp.zeros((3, 6))), condition_width=6)
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(3, 6\)"):
        net.apply(variables, CODE, T, Condition(vector=jnp.zeros((3, 5))))
