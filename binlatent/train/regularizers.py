"""Terms that keep a binary code in shape: confident bits, used bits, bounded logits.

Each takes the encoder's logits (b, y, x, k) and is to be minimised. Each is computed in float32 whatever the logits'
type, per example where the term allows it. Entropies are in bits and averaged over bits, so that 1 is a fair coin and
weights mean the same for any code size.
"""

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Bool, Code, Float, Logits

PerExample = Float[Array, "b"]


def _per_example(values: Array) -> Array:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def official(logits: Logits, *, use_tanh: bool = False) -> PerExample:
    """The 2023 release's `code_loss`: the mean of s(1 − s) with s = σ(a), a the *activation* (σ of the logits, or
    tanh with `use_tanh`).

    The sigmoid is applied twice there, so the term is nearly flat (0.197 to 0.25 for σ codes) and, with
    `use_tanh=False`, lower for bits near 1 than for bits near 0. its weight there is 0; it is here to reproduce,
    `sample_entropy` is the one to use.
    """
    logits = logits.astype(jnp.float32)
    # logits are those of the bits: σ(logit) = (1 + tanh u)/2 for the release's features u
    s = jax.nn.sigmoid(jnp.tanh(logits / 2) if use_tanh else jax.nn.sigmoid(logits))
    return _per_example(s * (1 - s))


def commitment(logits: Logits, code: Code) -> PerExample:
    """Mean squared distance of each logit to the ±1 of the bit it became: bounds the logits, so that their sigmoids
    keep a gradient.

    The commitment term of LFQ and MaskBit, without the factor that they put in its weight (0.25).
    """
    signs = jnp.where(code, 1.0, -1.0)
    return _per_example(jnp.square(logits.astype(jnp.float32) - signs))


def sample_entropy(logits: Logits) -> PerExample:
    """Mean entropy of the bits given the image, in bits: minimised, it makes bits confident.

    The factorised form of LFQ's and BSQ's E[H(z | x)]: bits are independent given x, so the joint entropy is the sum
    over bits.
    """
    logits = logits.astype(jnp.float32)
    nats = jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)
    return _per_example(nats) / jnp.log(2.0)


def usage(logits: Logits, mask: Bool[Array, "b"] | None = None) -> Float[Array, "2 k"]:
    """How often each bit is one, and how often zero, over images and positions.

    Args:
      mask: false for examples that do not count.
    """
    logits = logits.astype(jnp.float32)
    axes = tuple(range(logits.ndim - 1))
    where = None if mask is None else mask[:, None, None, None]
    # Both sides are averaged, not one subtracted from 1: a bit that is almost always set keeps its gradient.
    return jnp.stack([jnp.mean(jax.nn.sigmoid(sign * logits), axis=axes, where=where) for sign in (1, -1)])


def batch_entropy(
    logits: Logits, mask: Bool[Array, "b"] | None = None, batch_usage: Float[Array, "2 k"] | None = None
) -> Float[Array, ""]:
    """1 − the mean entropy of each bit's average over images and positions, in bits: minimised, it makes every bit
    used half the time.

    The factorised form of LFQ's and BSQ's −H(E[z]), an upper bound on the joint entropy that costs k numbers in place
    of 2^k.

    This is the one term that is no mean of per-example values: the average is over the batch it is given. Under `jit`
    with a sharded batch that is the global batch, on any number of devices.

    Args:
      mask: false for examples that do not count.
      batch_usage: `usage` of the full batch, where `logits` are one micro-batch of it. The term is then linearised
        there, so that its mean over micro-batches has the full batch's value and gradient.
    """

    def of(usage):
        return 1 + jnp.sum(usage * jnp.log(usage + jnp.finfo(jnp.float32).tiny), axis=0).mean() / jnp.log(2.0)

    here = usage(logits, mask)
    if batch_usage is None:
        return of(here)
    value, change = jax.jvp(of, (jax.lax.stop_gradient(batch_usage),), (here - jax.lax.stop_gradient(batch_usage),))
    return value + change
