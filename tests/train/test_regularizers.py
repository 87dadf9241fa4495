import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.train import regularizers

LOGITS = jax.random.normal(jax.random.key(0), (4, 3, 2, 6)) * 3


@pytest.mark.parametrize("case", ["autoencoder", "autoencoder_tanh"])
def test_official_equals_the_release(reference, case):
    with open(os.path.join(reference, case, "hparams.json")) as file:
        use_tanh = json.load(file)["use_tanh"]
    io = np.load(os.path.join(reference, case, "io.npz"))
    activation = np.moveaxis(io["activation"].astype(np.float64), 1, -1)
    logits = 2 * np.arctanh(activation) if use_tanh else np.log(activation / (1 - activation))
    terms = regularizers.official(jnp.asarray(logits, jnp.float32), use_tanh=use_tanh)
    assert terms.shape == (3,)
    np.testing.assert_allclose(jnp.mean(terms), io["code_loss"], atol=1e-6)


def test_entropies_against_the_plain_formula():
    p = np.asarray(jax.nn.sigmoid(LOGITS), np.float64)

    def entropy(p):
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

    np.testing.assert_allclose(regularizers.sample_entropy(LOGITS), entropy(p).mean((1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(regularizers.batch_entropy(LOGITS), 1 - entropy(p.mean((0, 1, 2))).mean(), atol=1e-6)


def test_entropies_at_their_extremes():
    fair, sure = jnp.zeros((2, 1, 1, 4)), jnp.full((2, 1, 1, 4), 60.0)
    split = sure * jnp.array([1.0, -1.0])[:, None, None, None]
    np.testing.assert_allclose(regularizers.sample_entropy(fair), 1, atol=1e-6)
    np.testing.assert_allclose(regularizers.sample_entropy(sure), 0, atol=1e-6)
    np.testing.assert_allclose(regularizers.batch_entropy(sure), 1, atol=1e-6)  # dead
    np.testing.assert_allclose(regularizers.batch_entropy(split), 0, atol=1e-6)  # confident and used


def test_descent_makes_bits_confident_and_used():
    logits = jnp.array([2.0, 1.0, 0.5, 0.2]).reshape(4, 1, 1, 1)
    assert np.all(-jax.grad(lambda v: regularizers.sample_entropy(v).sum())(logits) > 0)
    assert np.all(-jax.grad(regularizers.batch_entropy)(logits) < 0)


@pytest.mark.parametrize("value", [-300.0, -30.0, 0.0, 30.0, 300.0])
def test_gradients_are_finite_for_saturated_bits(value):
    logits = jnp.full((2, 1, 1, 3), value)
    for term in (regularizers.sample_entropy, regularizers.batch_entropy, regularizers.official):
        assert np.all(np.isfinite(jax.grad(lambda v, term=term: jnp.sum(term(v)))(logits))), term.__name__


def test_commitment_pulls_each_logit_to_its_own_bit():
    code = LOGITS > 0
    at_rest = jnp.where(code, 1.0, -1.0)
    np.testing.assert_allclose(regularizers.commitment(at_rest, code), 0)
    np.testing.assert_allclose(regularizers.commitment(-at_rest, code), 4)
    assert regularizers.commitment(LOGITS, code).shape == (4,)


def test_bf16_logits_give_float32_terms():
    logits = LOGITS.astype(jnp.bfloat16)
    for value in (
        regularizers.official(logits),
        regularizers.sample_entropy(logits),
        regularizers.batch_entropy(logits),
        regularizers.commitment(logits, logits > 0),
    ):
        assert value.dtype == jnp.float32
