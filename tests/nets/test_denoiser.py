import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.denoiser import Denoiser

SHAPE = (3, 2, 4)
MASK = jnp.array([[True, True, False], [True, True, True]])
FEATURES, WORDS = jnp.arange(36.0).reshape(2, 3, 6) / 36, jnp.array([[5, 2, 0], [1, 7, 3]], jnp.uint16)
CONDITIONS = {
    "none": ({}, None),
    "class": ({"num_classes": 5}, Condition(label=jnp.array([0, 4]))),
    "vector": ({"vector_width": 6}, Condition(vector=jnp.arange(12.0).reshape(2, 6) / 12)),
    "text": ({"token_width": 6}, Condition(tokens=FEATURES, token_mask=MASK)),
    "words": ({"vocabulary": 8}, Condition(tokens=WORDS, token_mask=MASK)),
    "all": (
        {"num_classes": 5, "vector_width": 4, "token_width": 6},
        Condition(label=jnp.array([0, 4]), vector=jnp.ones((2, 4)), tokens=FEATURES, token_mask=MASK),
    ),
}


def make(options, condition):
    conditioning = Conditioning(**options)
    net = Denoiser(code_shape=SHAPE, width=16, depth=2, heads=2, components=3, conditioning=conditioning, text_depth=1)
    code = jax.random.bernoulli(jax.random.key(0), 0.5, (2, *SHAPE))
    t = jnp.array([0.1, 0.9])
    params = net.init(jax.random.key(1), code, t, condition)["params"]
    # away from the zeros of the start, so that everything has an effect
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    params = jax.tree.unflatten(
        tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )
    return net, params, code, t


@pytest.mark.parametrize("kind", CONDITIONS)
def test_conditions_and_their_null(kind):
    options, condition = CONDITIONS[kind]
    net, params, code, t = make(options, condition)
    apply = lambda *a: np.asarray(net.apply({"params": params}, code, t, *a).logits)  # noqa: E731
    absent = apply()
    assert absent.shape == (2, 3, 2, 3, 4)
    if condition is None:
        with pytest.raises(ValueError, match="without one"):
            apply(Condition(label=jnp.array([0, 1])))
        return
    given = apply(condition)
    mixed = apply(condition, jnp.array([True, False]))
    assert np.abs(given - absent).max() > 1e-3
    np.testing.assert_allclose(mixed[0], given[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], absent[1], atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(CONDITIONS) - {"none"}))
@pytest.mark.parametrize("mask", [None, jnp.array([True, False])])
def test_an_embedded_condition_is_the_condition(kind, mask):
    options, condition = CONDITIONS[kind]
    net, params, code, t = make(options, condition)
    embedded = net.apply({"params": params}, condition, mask, method="embed_condition")
    expected = net.apply({"params": params}, code, t, condition, mask)
    found = net.apply({"params": params}, code, t, embedded)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


@pytest.mark.parametrize("kind", ["text", "words"])
def test_padding_changes_nothing_to_the_bit(kind):
    """Neither what it holds nor, but for the order of sums, how much of it there is."""
    options, condition = CONDITIONS[kind]
    net, params, code, t = make(options, condition)
    apply = lambda c: np.asarray(net.apply({"params": params}, code, t, c).logits)  # noqa: E731
    other = jnp.where(MASK.reshape(2, 3, *(1,) * (condition.tokens.ndim - 2)), condition.tokens, 6)
    assert not np.array_equal(other, condition.tokens)
    assert np.array_equal(apply(condition), apply(condition.replace(tokens=other)))
    longer = [jnp.pad(x, ((0, 0), (0, 5), *((0, 0),) * (x.ndim - 2))) for x in (other, MASK)]
    np.testing.assert_allclose(apply(condition), apply(Condition(tokens=longer[0], token_mask=longer[1])), atol=1e-6)
    shown = apply(condition.replace(token_mask=jnp.ones_like(MASK)))
    assert np.abs(shown[0] - apply(condition)[0]).max() > 1e-3  # a mask that is ignored would pass all of the above


def test_padding_may_hold_nan():
    net, params, code, t = make(*CONDITIONS["text"])
    tokens = jnp.where(MASK[..., None], FEATURES, jnp.nan)
    assert np.isfinite(net.apply({"params": params}, code, t, Condition(tokens=tokens, token_mask=MASK)).logits).all()


def test_starts_without_an_opinion():
    net = Denoiser(code_shape=SHAPE, width=16, depth=2, heads=2, components=1)
    code, t = jnp.ones((1, *SHAPE), bool), jnp.array([0.5])
    params = net.init(jax.random.key(0), code, t)
    assert not np.asarray(net.apply(params, code, t).logits).any()


def test_components_differ_from_the_start_and_mean_the_same_whatever_the_noised_bit_is():
    net = Denoiser(code_shape=SHAPE, width=16, depth=2, heads=2, components=3)
    code, t = jax.random.bernoulli(jax.random.key(3), 0.5, (4, *SHAPE)), jnp.full(4, 0.5)
    params = net.init(jax.random.key(0), code, t)
    found = net.apply(params, code, t)
    ones = np.where(np.asarray(code)[..., None, :], -1, 1) * np.asarray(found.logits)  # log-odds of z_0 = 1
    np.testing.assert_allclose(ones, np.broadcast_to(ones[:1, :1, :1], ones.shape))
    assert np.abs(np.diff(ones[0, 0, 0], axis=0)).min() > 1e-3
    assert not np.asarray(found.weights).any()


def test_components_of_the_code_have_weights_of_their_own():
    net = Denoiser(code_shape=SHAPE, width=16, depth=2, heads=2, components=2, code_components=3)
    code, t = jax.random.bernoulli(jax.random.key(3), 0.5, (4, *SHAPE)), jnp.full(4, 0.5)
    params = net.init(jax.random.key(0), code, t)
    found = net.apply(params, code, t)
    assert (found.logits.shape, found.weights.shape) == ((4, *SHAPE[:2], 6, SHAPE[2]), (4, *SHAPE[:2], 6))
    assert found.code_weights.shape == (4, 3) and not np.asarray(found.code_weights).any()
    params["params"]["code_weights"]["kernel"] = jnp.arange(48.0).reshape(16, 3)
    weights = net.apply(params, code, t).code_weights
    assert len({round(float(w), 5) for w in weights[:, 0]}) == 4  # of each example


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_number(remat):
    net, params, code, t = make({}, None)
    other = net.clone(remat=remat)
    loss = lambda net: lambda p: (net.apply({"params": p}, code, t).logits ** 2).sum()  # noqa: E731
    a, b = (jax.grad(loss(n))(params) for n in (net, other))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def test_bfloat16_keeps_parameters_and_output_in_float32():
    net = Denoiser(code_shape=SHAPE, width=16, depth=2, heads=2, dtype=jnp.bfloat16)
    code, t = jnp.ones((1, *SHAPE), bool), jnp.array([0.5])
    params = net.init(jax.random.key(0), code, t)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(net.apply(params, code, t))} == {jnp.dtype("float32")}


def test_every_example_and_token_is_read_in_its_place():
    net, params, code, t = make({}, None)
    out = net.apply({"params": params}, code, t).logits
    swapped = net.apply({"params": params}, code[::-1], t[::-1]).logits
    np.testing.assert_allclose(out[::-1], swapped, atol=1e-5)


def test_paper_size_stays_near_the_release():
    net = Denoiser(code_shape=(16, 16, 32), width=768, depth=24, heads=12)
    abstract = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16, 16, 32), bool), jnp.zeros(1))
    assert 170e6 < sum(x.size for x in jax.tree.leaves(abstract)) < 180e6


def test_wrong_arguments():
    for heads in (3, 8):  # 8 heads of 2 features cannot be turned by row and by column
        with pytest.raises(ValueError, match=rf"a multiple of 4 × heads \({heads}\)"):
            Denoiser(code_shape=SHAPE, width=16, heads=heads)
    net, params, code, t = make(*CONDITIONS["text"])
    wrong = {
        r"\(2, 3, 5\).*\(2, any, 6\)": Condition(tokens=jnp.zeros((2, 3, 5))),
        r"vector of shape \(2, 6\)": Condition(vector=jnp.zeros((2, 6))),
        r"tokens of shape None": Condition(),
        r"token_mask of shape \(2, 4\)": Condition(tokens=FEATURES, token_mask=jnp.ones((2, 4), bool)),
    }
    for message, condition in wrong.items():
        with pytest.raises(ValueError, match=message):
            net.apply({"params": params}, code, t, condition)
