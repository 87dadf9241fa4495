"""What a network's output means: the channel's evidence, temperature, and the marginal of a mixture.

Bayes splits the flip log-odds f of a bit exactly in two (docs/prior.md):

    f = g + o(t),    o(t) = log((1 − α)/(1 + α))

`o` is the bit's own evidence, how likely the channel flips any bit, and needs no network. `g` is what the other bits and the
condition say: the leave-one-out log-odds (arXiv 2605.22765). A network that gives g does not have to learn o, which falls
without bound as t → 0.
"""

import jax
import jax.numpy as jnp
from einops import rearrange

from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Float, Prediction

PARAMETRIZATIONS = ("leave_one_out", "flip")

# The smallest probability of a flip that o is computed with: α rounds to 1 near t = 0, where o falls to −∞.
SMALLEST = 1e-12


def product(logits: Float[Array, "b *tokens k"]) -> Prediction:
    """Independent bits, a mixture of one component."""
    return Prediction(logits[..., None, :], jnp.zeros_like(logits[..., :1]))


def evidence(alpha: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """o = log((1 − α)/(1 + α)) ≤ 0, the log-odds that the channel flips a bit; finite also at α = 1."""
    return jnp.log(jnp.maximum(1 - alpha, SMALLEST)) - jnp.log1p(alpha)


def _shaped(alpha, prediction: Prediction) -> Array:
    """Per-example numbers (b,), to be combined with the logits."""
    return jnp.reshape(alpha, (-1,) + (1,) * (prediction.logits.ndim - 1))


def temper(
    output: Prediction, t: Float[Array, "b"], temperature, *, schedule: Schedule, parametrization: str
) -> Prediction:
    """The output with g divided by the temperature τ, in every component, and their weights to the power 1/τ; a temperature of
    1 is an exact identity.

    Dividing f = g + o would sharpen the channel's evidence once more at every step, and do ever less the more steps there
    are. Weights too have such evidence in them, log p(z_t | component). It is taken out of them before, and put back as the
    tempered components have it.
    """

    def tempered(output):
        o = _shaped(evidence(schedule(t)), output)
        own = o if parametrization == "flip" else jnp.zeros_like(o)
        g = output.logits - own
        before, after = _seen(g, o), _seen(g / temperature, o)
        found = output._replace(logits=g / temperature + own, weights=(output.weights - before) / temperature + after)
        if output.code_weights is None:
            return found
        # Σ_tokens log Σ_c p(c) p(z_t | c), of normalised p(c) = weight / p(z_t | c)
        before, after = (
            -jax.nn.logsumexp(log_weights(x) - by_code_component(seen, x), axis=-1).sum(range(1, x.weights.ndim - 1))
            for x, seen in ((output, before), (found, after))
        )
        return found._replace(code_weights=(output.code_weights - before) / temperature + after)

    return jax.lax.cond(temperature == 1, lambda output: output, tempered, output)


def _seen(g: Float[Array, "b *tokens gc k"], o: Array) -> Float[Array, "b *tokens gc"]:
    """log p(z_t | component) of each token, Σ_bits log (1 + e^{g + o})/(1 + e^g), up to a number that all components share."""
    return (jax.nn.softplus(g + o) - jax.nn.softplus(g)).sum(-1)


def calibrate(output: Prediction, t: Float[Array, "b"], *, schedule: Schedule, parametrization: str) -> Prediction:
    """Flip log-odds f given all of z_t: what the `mixture` step, likelihoods and cross-entropy need.

    The output itself where a network gives f; o is added where it gives g.
    """
    if parametrization == "flip":
        return output
    return output._replace(logits=output.logits + _shaped(evidence(schedule(t)), output))


def log_weights(prediction: Prediction) -> Float[Array, "b *tokens g c"]:
    """Normalised log-weights of a token's C components, in each component of the code; exactly 0 for C = 1."""
    return jax.nn.log_softmax(by_code_component(prediction.weights, prediction), axis=-1)


def log_code_weights(prediction: Prediction) -> Float[Array, "b g"]:
    """Normalised log-weights of the code's G components; exactly 0 for G = 1."""
    if prediction.code_weights is None:
        return jnp.zeros((prediction.logits.shape[0], 1))
    return jax.nn.log_softmax(prediction.code_weights, axis=-1)


def by_code_component(x: Float[Array, "b *tokens gc"], prediction: Prediction) -> Float[Array, "b *tokens g c"]:
    """What is given for each component, with those of one component of the code along an axis of their own."""
    num = 1 if prediction.code_weights is None else prediction.code_weights.shape[-1]
    return rearrange(x, "... (g c) -> ... g c", g=num)


def untied(prediction: Prediction) -> Prediction:
    """The same distribution of every token alone, with tokens independent: a mixture of G·C products a token."""
    if prediction.code_weights is None:
        return prediction
    weights = log_weights(prediction)
    code = log_code_weights(prediction)
    weights = weights + code.reshape(code.shape[0], *(1,) * (weights.ndim - 3), code.shape[-1], 1)
    return Prediction(prediction.logits, weights.reshape(prediction.weights.shape))


def marginal(prediction: Prediction) -> Float[Array, "b *tokens k"]:
    """Flip log-odds of every bit alone."""
    if prediction.logits.shape[-2] == 1:
        return prediction.logits[..., 0, :]
    weights = jax.nn.log_softmax(untied(prediction).weights, axis=-1)[..., None]
    flip = jax.nn.logsumexp(weights + jax.nn.log_sigmoid(prediction.logits), axis=-2)
    stay = jax.nn.logsumexp(weights + jax.nn.log_sigmoid(-prediction.logits), axis=-2)
    return flip - stay
