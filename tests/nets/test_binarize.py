import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets import binarize

LOGITS = jnp.linspace(-3, 3, 24).reshape(1, 2, 3, 4)


@pytest.mark.parametrize(
    "draw", [binarize.threshold, lambda x: binarize.bernoulli(x, jax.random.uniform(jax.random.key(0), x.shape))]
)
def test_values_are_bits_with_straight_through_gradients(draw):
    assert set(np.unique(draw(LOGITS))) == {0.0, 1.0}
    weights = jnp.arange(24.0).reshape(LOGITS.shape)
    gradient = jax.grad(lambda x: jnp.sum(weights * draw(x)))(LOGITS)
    p = jax.nn.sigmoid(LOGITS)
    np.testing.assert_allclose(gradient, weights * p * (1 - p), rtol=1e-5)


def test_bernoulli_has_its_mean():
    logits = jnp.broadcast_to(LOGITS, (4000, 2, 3, 4))
    bits = binarize.bernoulli(logits, jax.random.uniform(jax.random.key(1), logits.shape))
    np.testing.assert_allclose(bits.mean(0), jax.nn.sigmoid(LOGITS[0]), atol=0.04)


def test_threshold_agrees_with_the_stored_code():
    np.testing.assert_array_equal(binarize.threshold(LOGITS) == 1, binarize.to_code(LOGITS))


def test_decoder_input():
    code = binarize.to_code(LOGITS)
    assert set(np.unique(binarize.decoder_input(code))) == {0.0, 1.0}
    assert set(np.unique(binarize.decoder_input(code, signed=True))) == {-1.0, 1.0}


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="one draw per bit"):
        binarize.bernoulli(LOGITS, jnp.zeros((1, 2, 3, 5)))
