"""The Bernoulli forward process and its reverse steps, as pure functions.

Noise at time t keeps a bit with probability α_t and replaces it by a fair coin otherwise. A reverse step is described by whether
z_s differs from z_t (a flip): its probability then depends on z_t only through what is known of z_0. Distributions are carried
as the pair of log-probabilities (flip, stay), so that neither loses its digits where the other is near 1, and cross-entropies
and their gradients stay finite for any logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from binlatent.diffusion.prediction import by_code_component, log_code_weights, log_weights, marginal
from binlatent.typing import Array, Bool, Float, Prediction

POSTERIORS = ("mixture", "plugin")

IMPOSSIBLE = -1e4  # log-probability of what cannot happen: finite, so that 0 · log 0 and its gradient are 0


class Flips(NamedTuple):
    """Log-probabilities that a bit differs from z_t, and that it does not; both (…), their exponentials sum to 1."""

    flip: Array
    stay: Array


def per_bit(alpha, ndim: int) -> Array:
    """Shapes α, (b,) or a scalar for all, to multiply arrays of `ndim` axes."""
    return jnp.reshape(alpha, (-1,) + (1,) * (ndim - 1))


def corrupt(uniform: Float[Array, "b *bits"], code: Bool[Array, "b *bits"], alpha) -> Bool[Array, "b *bits"]:
    """z_t ~ q(z_t | z_0): flips each bit with probability (1 − α)/2; also q(z_t | z_s) with α_{t|s} = α_t/α_s.

    Args:
      uniform: U[0, 1) draws, one a bit; the only randomness, so the transform is stateless.
      code: bits (b, …).
      alpha: keep probability, scalar or (b,).
    """
    return code ^ (uniform < per_bit((1 - alpha) / 2, code.ndim))


def _log(p: Array) -> Array:
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), IMPOSSIBLE)


def _steps(alpha_t, alpha_s, ndim: int) -> tuple[Flips, Flips]:
    """q(z_s | z_t, z_0) by Bayes' rule, where z_0 differs from z_t and where it does not; numbers an example."""
    a_t, a_s = per_bit(alpha_t, ndim), per_bit(alpha_s, ndim)
    keep, change = (a_s + a_t) / (2 * a_s), (a_s - a_t) / (2 * a_s)  # z_t against z_s; no digits lost for close times
    # where α_t rounds to 1, z_0 cannot differ from z_t; if it is said to, z_s is z_0
    possible = a_t < 1
    rest = jnp.where(possible, 1 - a_t, 1.0)
    differs = Flips(
        _log(jnp.where(possible, change * (1 + a_s) / rest, 1.0)),
        _log(jnp.where(possible, keep * (1 - a_s) / rest, 0.0)),
    )
    return differs, Flips(_log(change * (1 - a_s) / (1 + a_t)), _log(keep * (1 + a_s) / (1 + a_t)))


def posterior(flipped: Bool[Array, "b *bits"], alpha_t, alpha_s) -> Flips:
    """q(z_s | z_t, z_0) for any s < t (docs/prior.md).

    Args:
      flipped: where z_0 differs from z_t.
      alpha_t, alpha_s: keep probabilities, scalar or (b,), α_s > α_t.
    """
    differs, equals = _steps(alpha_t, alpha_s, flipped.ndim)
    return Flips(*(jnp.where(flipped, a, b) for a, b in zip(differs, equals, strict=True)))


def reverse(logits: Float[Array, "b *bits"], alpha_t, alpha_s, kind: str) -> Flips:
    """p(z_s | z_t), the model's reverse step for independent bits, or for each component of a mixture.

    Args:
      logits: flip log-odds of z_0, of any shape that begins with the batch.
      kind: `mixture`, the law of total probability over z_0, for log-odds f given all of z_t; or `plugin`, the release's
        step, which puts the soft estimate in place of z_0 and so brings in the evidence of z_t. It counts that twice for
        f, and is exact for leave-one-out log-odds.

    Raises:
      ValueError: there is no such kind.
    """
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    if kind == "mixture":
        differs, equals = _steps(alpha_t, alpha_s, logits.ndim)
        return Flips(*(jnp.logaddexp(yes + a, no + b) for a, b in zip(differs, equals, strict=True)))
    if kind == "plugin":
        a_t, a_s = per_bit(alpha_t, logits.ndim), per_bit(alpha_s, logits.ndim)
        data, coin = _log(a_s), _log((1 - a_s) / 2)
        flip = jnp.logaddexp(data + yes, coin) + _log((a_s - a_t) / (2 * a_s))
        stay = jnp.logaddexp(data + no, coin) + _log((a_s + a_t) / (2 * a_s))
        total = jnp.logaddexp(flip, stay)
        return Flips(flip - total, stay - total)
    raise ValueError(f"no posterior {kind!r}; there are {', '.join(POSTERIORS)}")


def draw(
    prediction: Prediction, uniform: Float[Array, "b *bits"], choice: Float[Array, "b *tokens"],
    code_choice: Float[Array, "b"], alpha_t, alpha_s, kind: str,
) -> Bool[Array, "b *bits"]:  # fmt: skip
    """Where z_s ~ p(z_s | z_t) differs from z_t: a component of the code is drawn, in it one of every token, then the
    token's bits by the step `kind`.

    Args:
      uniform, choice, code_choice: U[0, 1) draws, one a bit, a token and an example.
    """
    logits = drawn_component(prediction, choice, code_choice)
    return uniform < jnp.exp(reverse(logits, alpha_t, alpha_s, kind).flip)


def drawn_component(
    prediction: Prediction, choice: Float[Array, "b *tokens"], code_choice: Float[Array, "b"]
) -> Float[Array, "b *tokens k"]:
    """Logits of one component of every token in one of the code, drawn by their weights; see `draw`."""
    code_component = _drawn(log_code_weights(prediction), code_choice)
    drawn = _drawn(_of_code_component(log_weights(prediction), code_component, axis=-2), choice)
    return _component(prediction, code_component, drawn)


def likeliest(prediction: Prediction) -> Bool[Array, "b *bits"]:
    """Where the likelier value of each bit of z_0, within the likeliest component of its code and then of its token, differs
    from z_t."""
    code_component = jnp.argmax(log_code_weights(prediction), axis=-1)
    weights = _of_code_component(by_code_component(prediction.weights, prediction), code_component, axis=-2)
    return _component(prediction, code_component, jnp.argmax(weights, axis=-1)) > 0


def _drawn(weights: Float[Array, "*b c"], uniform: Float[Array, "*b"]) -> Array:
    """Indices with probabilities exp(weights)."""
    return (uniform[..., None] >= jnp.cumsum(jnp.exp(weights), axis=-1)[..., :-1]).sum(-1)


def _of_code_component(x: Array, index: Array, *, axis: int) -> Array:
    """Of what is given for every component of the code along an axis, that of one component an example."""
    return jnp.take_along_axis(x, per_bit(index, x.ndim), axis=axis).squeeze(axis)


def _component(prediction: Prediction, code_component: Array, component: Array) -> Array:
    """Logits (b, …, k) of one component a token, (b, …), in one of the code, (b,)."""
    size = by_code_component(prediction.weights, prediction).shape[-1]
    index = per_bit(code_component, component.ndim) * size + component
    return jnp.take_along_axis(prediction.logits, index[..., None, None], axis=-2).squeeze(-2)


def kl(q: Flips, p: Flips) -> Array:
    """KL(q ‖ p) a bit, in nats; a certain q gives −log p."""
    return jnp.exp(q.flip) * (q.flip - p.flip) + jnp.exp(q.stay) * (q.stay - p.stay)


def log_probability(prediction: Prediction, flipped: Bool[Array, "b *bits"]) -> Float[Array, "b"]:
    """log p(z_0 | z_t) of a code, in nats, for flip log-odds f; `flipped` says where z_0 differs from z_t."""
    signed = jnp.where(flipped[..., None, :], prediction.logits, -prediction.logits)
    return _joint(prediction, jax.nn.log_sigmoid(signed).sum(-1))


def _joint(prediction: Prediction, parts: Float[Array, "b *tokens gc"]) -> Float[Array, "b"]:
    """The log-probability of a code, from that of each token in each component."""
    tokens = jax.nn.logsumexp(log_weights(prediction) + by_code_component(parts, prediction), axis=-1)
    return jax.nn.logsumexp(log_code_weights(prediction) + tokens.sum(tuple(range(1, tokens.ndim - 1))), axis=-1)


def divergence(
    prediction: Prediction, flipped: Bool[Array, "b *bits"], uniform: Float[Array, "b *bits"], alpha_t, alpha_s
) -> Float[Array, "b"]:
    """An unbiased estimate of KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) of a code, in nats, for the `mixture` step.

    It is the exact KL to the product of the model's marginals, plus log(that product / p) at one draw of z_s. The second
    part is what the components tie together: small for small steps, and 0 for one component.

    Args:
      prediction: flip log-odds f.
      flipped: where z_0 differs from z_t.
      uniform: U[0, 1) draws, one a bit, for z_s.
    """
    true, bits = posterior(flipped, alpha_t, alpha_s), tuple(range(1, flipped.ndim))
    moves = uniform < jnp.exp(true.flip)
    parts = reverse(prediction.logits, alpha_t, alpha_s, "mixture")
    joint = _joint(prediction, jnp.where(moves[..., None, :], *parts).sum(-1))
    alone = reverse(marginal(prediction), alpha_t, alpha_s, "mixture")
    return kl(true, alone).sum(bits) + jnp.where(moves, *alone).sum(bits) - joint


def marginal_divergence(
    prediction: Prediction, flipped: Bool[Array, "b *bits"], alpha_t, alpha_s
) -> Float[Array, "b *bits"]:
    """KL(q(z_s | z_t, z_0) ‖ the model's marginals of z_s) a bit, in nats, for the `mixture` step."""
    return kl(posterior(flipped, alpha_t, alpha_s), reverse(marginal(prediction), alpha_t, alpha_s, "mixture"))
