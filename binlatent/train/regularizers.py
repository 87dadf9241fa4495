"""Loss terms that regularise a binary code: confident bits, evenly used bits, bounded logits.

Each takes the encoder's logits (b, y, x, k), is minimised, and is computed in float32, per example where possible.
Entropies are in bits and averaged over bits, so 1 is a fair coin and weights do not depend on the size of the code.
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

    The release applies the sigmoid twice, so the term is nearly flat (0.197 to 0.25 for σ codes) and, with
    `use_tanh=False`, lower for bits near 1 than for bits near 0. Its weight in the release is 0; it is here for
    reproduction only. Use `sample_entropy` instead.
    """
    logits = logits.astype(jnp.float32)
    # these are log-odds: σ(logit) = (1 + tanh u)/2 for the release's features u
    s = jax.nn.sigmoid(jnp.tanh(logits / 2) if use_tanh else jax.nn.sigmoid(logits))
    return _per_example(s * (1 - s))


def commitment(logits: Logits, code: Code) -> PerExample:
    """Mean squared distance of each logit from the ±1 of its bit: bounds the logits, so that gradients of their sigmoids
    do not vanish.

    The commitment term of LFQ and MaskBit, without their weight of 0.25.
    """
    signs = jnp.where(code, 1.0, -1.0)
    return _per_example(jnp.square(logits.astype(jnp.float32) - signs))


def sample_entropy(logits: Logits) -> PerExample:
    """Mean entropy of the bits given the image, in bits; minimising it makes bits confident.

    The factorised form of LFQ's and BSQ's E[H(z | x)]: bits are independent given x, so the joint entropy is the sum
    over bits.
    """
    logits = logits.astype(jnp.float32)
    nats = jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)
    return _per_example(nats) / jnp.log(2.0)


def usage(logits: Logits, mask: Bool[Array, "b"] | None = None) -> Float[Array, "2 k"]:
    """The mean probability that each bit is one, and that it is zero, over images and positions.

    Args:
      mask: false for padding.
    """
    logits = logits.astype(jnp.float32)
    axes = tuple(range(logits.ndim - 1))
    where = None if mask is None else mask[:, None, None, None]
    # both are averaged, because 1 − mean would lose the gradient of a bit that is almost always set
    return jnp.stack([jnp.mean(jax.nn.sigmoid(sign * logits), axis=axes, where=where) for sign in (1, -1)])


def batch_entropy(
    logits: Logits, mask: Bool[Array, "b"] | None = None, batch_usage: Float[Array, "2 k"] | None = None
) -> Float[Array, ""]:
    """1 − the mean entropy of each bit's average over images and positions, in bits; minimising it makes every bit set
    half the time.

    The factorised form of LFQ's and BSQ's −H(E[z]): the sum of the bits' entropies bounds the joint entropy from above and
    needs k numbers instead of 2^k.

    This is the only term that is not a mean of per-example values. Under `jit` with a sharded batch, the average is over
    the global batch, on any number of devices.

    Args:
      mask: false for padding.
      batch_usage: `usage` of the full batch, where `logits` are one micro-batch of it. The term is then linearised
        there, so that its mean over micro-batches has the full batch's value and gradient.
    """

    def negentropy(usage):
        return 1 + jnp.sum(usage * jnp.log(usage + jnp.finfo(jnp.float32).tiny), axis=0).mean() / jnp.log(2.0)

    own_usage = usage(logits, mask)
    if batch_usage is None:
        return negentropy(own_usage)
    batch_usage = jax.lax.stop_gradient(batch_usage)
    value, change = jax.jvp(negentropy, (batch_usage,), (own_usage - batch_usage,))
    return value + change
