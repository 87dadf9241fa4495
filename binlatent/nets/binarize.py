"""Logits → bits → the decoder's input. This arithmetic is nowhere else.

Bits are float 0/1 here, because gradients pass through them (the straight-through estimator); outside the networks they
are bool.
"""

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Code, Float, Logits


def _straight_through(hard: Logits, soft: Logits) -> Logits:
    # `soft - stop_gradient(soft)` is exactly 0, so the value stays exactly 0 or 1; with (hard + soft) - soft it would not
    return hard + (soft - jax.lax.stop_gradient(soft))


def threshold(logits: Logits) -> Logits:
    """Bits (b, y, x, k), float 0/1: 1 where the probability exceeds one half. The gradient is the probability's."""
    return _straight_through((logits > 0).astype(logits.dtype), jax.nn.sigmoid(logits))


def bernoulli(logits: Logits, noise: Float[Array, "..."]) -> Logits:
    """Bits (b, y, x, k), float 0/1, z ~ Bernoulli(σ(logits)). The gradient is the probability's.

    Args:
      logits: log-odds of each bit.
      noise: uniform draws in [0, 1); a bit is 1 where its draw lies below its probability.
    """
    if noise.shape != logits.shape:
        raise ValueError(f"noise has shape {noise.shape}; one draw per bit is expected: {logits.shape}")
    probability = jax.nn.sigmoid(logits)
    return _straight_through((noise < probability).astype(logits.dtype), probability)


def to_code(logits: Logits) -> Code:
    """The code as it is stored: bool (b, y, x, k), 1 where the probability exceeds one half."""
    return logits > 0


def decoder_input(bits: Float[Array, "b y x k"] | Code, *, signed: bool = False) -> Float[Array, "b y x k"]:
    """The decoder's input, float32: 0/1, or ±1 where `signed` (the release's `use_tanh`)."""
    bits = jnp.asarray(bits, jnp.float32)
    return 2 * bits - 1 if signed else bits
