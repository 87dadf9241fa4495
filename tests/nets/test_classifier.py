"""The small classifier: shapes, any image size, and that it learns."""

import jax
import jax.numpy as jnp
import pytest

from binlatent.nets.classifier import FeatureClassifier


@pytest.mark.parametrize("size, channels", [(8, 1), (32, 3)])
def test_features_and_logits(size, channels):
    net = FeatureClassifier(num_classes=5, width=8, num_features=16)
    images = jax.random.uniform(jax.random.key(0), (3, size, size, channels))
    out, _ = jax.jit(net.init_with_output)(jax.random.key(1), images)
    assert out.features.shape == (3, 16) and out.logits.shape == (3, 5)
    assert jnp.abs(out.features).max() <= 1


def test_bfloat16_computes_and_returns_float32():
    net = FeatureClassifier(num_classes=5, width=8, num_features=16, dtype=jnp.bfloat16)
    out, variables = jax.jit(net.init_with_output)(jax.random.key(1), jnp.ones((2, 8, 8, 1)))
    assert out.features.dtype == out.logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
