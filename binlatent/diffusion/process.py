"""The Bernoulli forward process and its two reverse steps, as pure functions.

Noise at time t keeps a bit with probability α_t and replaces it by a fair coin otherwise. Distributions are carried as the pair
(P(bit = 1), P(bit = 0)): both are sums of positive products, so neither loses its digits where the other is near 1, as
`1 - p` in float32 would. That matters for likelihoods over many small steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Bool, Float

POSTERIORS = ("mixture", "plugin")


class Bernoulli(NamedTuple):
    """A Bernoulli distribution a bit, both probabilities (…); they sum to 1."""

    one: Array
    zero: Array


def per_bit(alpha, ndim: int) -> Array:
    """Shapes α, (b,) or a scalar for all, to multiply codes of `ndim` axes."""
    return jnp.reshape(alpha, (-1,) + (1,) * (ndim - 1))


def corrupt(uniform: Float[Array, "b *bits"], code: Bool[Array, "b *bits"], alpha) -> Bool[Array, "b *bits"]:
    """z_t ~ q(z_t | z_0): flips each bit with probability (1 − α)/2; also q(z_t | z_s) with α_{t|s} = α_t/α_s.

    Args:
      uniform: U[0, 1) draws, one a bit; the only randomness, so the transform is stateless.
      code: bits (b, …).
      alpha: keep probability, scalar or (b,).
    """
    return code ^ (uniform < per_bit((1 - alpha) / 2, code.ndim))


def _certain(code: Array) -> Bernoulli:
    """Hard bits, or soft ones in [0, 1], as a distribution."""
    one = code.astype(jnp.float32)
    return Bernoulli(one, 1 - one)


def _diffuse(p: Bernoulli, alpha: Array) -> Bernoulli:
    return Bernoulli(alpha * p.one + (1 - alpha) / 2, alpha * p.zero + (1 - alpha) / 2)


def marginal(code: Array, alpha) -> Bernoulli:
    """q(z_t | z_0), for hard bits or soft ones in [0, 1]."""
    return _diffuse(_certain(code), per_bit(alpha, code.ndim))


def _bayes(code_t: Array, origin: Bernoulli, alpha_t, alpha_s) -> Bernoulli:
    """q(z_t | z_s) · q(z_s | z_0 ~ origin), normalised over z_s."""
    prior = _diffuse(origin, per_bit(alpha_s, code_t.ndim))
    keep = per_bit(alpha_t / alpha_s, code_t.ndim)
    flip = per_bit((alpha_s - alpha_t) / alpha_s, code_t.ndim) / 2  # not (1 − keep)/2: no digits lost for close s and t
    one = jnp.where(code_t, keep + flip, flip) * prior.one
    zero = jnp.where(code_t, flip, keep + flip) * prior.zero
    total = one + zero
    possible = total > 0  # z_t may contradict a hard z_0 where α rounds to 1; the origin decides there
    total = jnp.where(possible, total, 1.0)
    return Bernoulli(jnp.where(possible, one / total, prior.one), jnp.where(possible, zero / total, prior.zero))


def posterior(code_t: Bool[Array, "b *bits"], code_0: Array, alpha_t, alpha_s) -> Bernoulli:
    """q(z_s | z_t, z_0) for any s < t (Bayes' rule; METHOD §4).

    Args:
      code_t: bits at time t.
      code_0: bits at time 0; a soft value in [0, 1] gives the `plugin` step.
      alpha_t, alpha_s: keep probabilities, scalar or (b,), α_s > α_t.
    """
    return _bayes(code_t, _certain(code_0), alpha_t, alpha_s)


def estimate(code_t: Bool[Array, "b *bits"], flip_logits: Float[Array, "b *bits"]) -> Bernoulli:
    """m = P(z_0 | z_t) from flip log-odds: the logit of m is f where z_t = 0 and −f where z_t = 1."""
    logits = jnp.where(code_t, -flip_logits, flip_logits)
    return Bernoulli(jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits))


def reverse(
    code_t: Bool[Array, "b *bits"], flip_logits: Float[Array, "b *bits"], alpha_t, alpha_s, kind: str
) -> Bernoulli:
    """p(z_s | z_t), the model's reverse step.

    Args:
      kind: `mixture`, the law of total probability over z_0, or `plugin`, the release's step, which puts the soft
        estimate in place of z_0 and so counts the evidence of z_t twice.

    Raises:
      ValueError: there is no such kind.
    """
    m = estimate(code_t, flip_logits)
    if kind == "plugin":
        return _bayes(code_t, m, alpha_t, alpha_s)
    if kind == "mixture":
        if_one = posterior(code_t, jnp.ones_like(code_t), alpha_t, alpha_s)
        if_zero = posterior(code_t, jnp.zeros_like(code_t), alpha_t, alpha_s)
        return Bernoulli(
            m.one * if_one.one + m.zero * if_zero.one,
            m.one * if_one.zero + m.zero * if_zero.zero,
        )
    raise ValueError(f"no posterior {kind!r}; there are {', '.join(POSTERIORS)}")


def kl(q: Bernoulli, p: Bernoulli) -> Array:
    """KL(q ‖ p) a bit, in nats; 0 log 0 = 0, so a deterministic q gives −log p."""

    def part(a, b):
        return jax.scipy.special.xlogy(a, a) - jax.scipy.special.xlogy(a, b)

    return part(q.one, p.one) + part(q.zero, p.zero)
