"""Micro-batches equal the whole batch; schedules, decay and clipping do what they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from binlatent import config as config_lib
from binlatent import prng
from binlatent.nets.condition import Conditioning
from binlatent.train.optimizer import Optimizer, accumulate, value_and_grad
from tests import tiny

BATCH = 16


def close(a, b):
    """Equal to 1e-6 of the tree's own size: a gradient's smallest entries are differences of large sums."""
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, a, b))
    assert float(difference) < 1e-6 * float(optax.tree.norm(b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6 * max(1.0, float(jnp.abs(y).max())))


def test_prior_micro_batches_equal_one_batch():
    config = tiny.config()
    stage = config_lib.build_prior_stage(config, (4, 4, 4), Conditioning(num_classes=3))
    rng = np.random.default_rng(0)
    batch = {
        "code": rng.integers(0, 256, (BATCH, 8), dtype=np.uint8),
        "label": rng.integers(0, 3, BATCH, dtype=np.int32),
    }
    state = stage.init(prng.root(0), batch)
    # at its start the network gives zeros whatever goes in, which would hide a difference
    params = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), state.params)

    @functools.partial(jax.jit, static_argnames="micro_batches")
    def split(params, batch, micro_batches):
        noise = stage.noise(prng.root(1), BATCH)
        return value_and_grad(stage.loss, params, batch, noise, micro_batches=micro_batches)

    loss, values, gradient = split(params, batch, micro_batches=4)
    whole_loss, whole_values, whole_gradient = split(params, batch, micro_batches=1)
    assert float(optax.tree.norm(whole_gradient)) > 1e-3
    np.testing.assert_allclose(loss, whole_loss, rtol=1e-6)
    close(values, whole_values)
    close(gradient, whole_gradient)


def test_autoencoder_micro_batches_equal_one_batch():
    config = tiny.config(autoencoder_loss__sample_entropy__weight=0.1, autoencoder_loss__batch_entropy__weight=1.0)
    stage = config_lib.build_autoencoder_stage(config)
    batch = {"image": tiny.images(BATCH)}
    state = stage.init(prng.root(0), batch)
    logits = state.params["autoencoder"]["code_logits"]
    logits["kernel"], logits["bias"] = 5 * logits["kernel"], logits["bias"] + 1  # images differ in their bits

    @functools.partial(jax.jit, static_argnames="micro_batches")
    def split(state, batch, micro_batches):
        keys = prng.per_example(prng.root(1), BATCH)
        return dataclasses.replace(stage, micro_batches=micro_batches).batch_gradients(state, batch, keys)

    parts, whole = split(state, batch, micro_batches=4), split(state, batch, micro_batches=1)
    assert float(optax.tree.norm(whole["gradients"])) > 1e-3
    assert float(whole["values"]["batch_entropy"]) > 1e-3
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-6)
    close(parts["values"], whole["values"])
    close(parts["gradients"], whole["gradients"])


def test_micro_batches_have_noise_of_their_own():
    """Had every micro-batch the same noise, the mean over examples would be that of one micro-batch."""
    keys = lambda: prng.per_example(prng.root(0), 8)  # noqa: E731
    drawn = accumulate(lambda x, k: prng.uniform(k, (1000,)).mean(0), jnp.zeros(8), keys(), micro_batches=4)
    np.testing.assert_allclose(drawn, prng.uniform(keys(), (1000,)).mean(0), rtol=1e-6)


def test_an_indivisible_batch_size_is_named():
    with pytest.raises(ValueError, match="a batch of 10 is not divisible into 4 micro-batches"):
        accumulate(lambda x, _: x.mean(), jnp.zeros(10), jnp.zeros(10), micro_batches=4)


def test_schedules():
    warm = Optimizer(learning_rate=2.0, warmup_steps=10).learning_rate_at(100)
    assert (float(warm(0)), float(warm(5)), float(warm(10)), float(warm(99))) == (0.0, 1.0, 2.0, 2.0)
    cosine = Optimizer(learning_rate=2.0, warmup_steps=10, schedule="cosine").learning_rate_at(110)
    np.testing.assert_allclose([cosine(10), cosine(60), cosine(110)], [2.0, 1.0, 0.0], atol=1e-6)
    with pytest.raises(ValueError, match="no learning-rate schedule 'step'"):
        Optimizer(learning_rate=1.0, schedule="step")


def test_weight_decay_leaves_biases_alone_and_clipping_bounds_the_norm():
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "blocks": {"offsets": jnp.ones((3, 6, 2))}}
    zero = jax.tree.map(jnp.zeros_like, params)
    decaying = Optimizer(learning_rate=0.1, weight_decay=0.5)
    moved, _ = decaying.update(zero, decaying.build(1).init(params), params, 1)
    np.testing.assert_allclose(moved["dense"]["kernel"], 0.95, rtol=1e-6)
    assert (moved["dense"]["bias"] == 1).all() and (moved["blocks"]["offsets"] == 1).all()

    clipping = Optimizer(learning_rate=0.1, clip_norm=1.0)
    huge = jax.tree.map(lambda x: 1e3 * jnp.ones_like(x), params)
    _, opt_state = clipping.update(huge, clipping.build(1).init(params), params, 1)
    first_moment = next(
        s.mu for s in jax.tree.leaves(opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    )
    np.testing.assert_allclose(optax.tree.norm(first_moment), 0.1, rtol=1e-5)  # (1 − b1) × the clipped gradient
