"""What a student of few steps is trained with: the derivative of a divergence by the means of its bits.

A student gives means μ of z_0, and z_s is z_0 noised. The distribution of z_s is linear in each mean, so the derivative of
KL(student's z_s ‖ teacher's z_s) is a difference over that bit alone (docs/few_steps.md):

    ∂KL/∂μ_i = α_s E[ℓ_i of the student's z_s − ℓ_i of the teacher's],    ℓ_i = log-odds that z_s,i = 1 given its other bits

No relaxation of bits is needed, and no score-function estimate. Moment matching: Salimans et al. (2024, arXiv 2406.04103); for
discrete diffusion arXiv 2603.20155.
"""

import jax.numpy as jnp

from binlatent.diffusion.prediction import evidence, marginal
from binlatent.diffusion.process import per_bit
from binlatent.typing import Array, Bool, Float, Prediction


def log_odds_of_one(logits: Float[Array, "b *bits"], code_t: Bool[Array, "b *bits"]) -> Float[Array, "b *bits"]:
    """Log-odds that bits of z_0 are 1, from those that they differ from z_t."""
    return jnp.where(code_t, -logits, logits)


def conditional_log_odds(
    prediction: Prediction, code_s: Bool[Array, "b *bits"], alpha: Float[Array, "b"]
) -> Float[Array, "b *bits"]:
    """ℓ: log-odds that each bit of z_s is 1, given all others.

    Args:
      prediction: flip log-odds f at (z_s, s), without temperature.
      code_s: z_s.
      alpha: α_s, below 1.
    """
    others = log_odds_of_one(
        marginal(prediction) - per_bit(evidence(alpha), code_s.ndim), code_s
    )  # of z_0, by the other bits
    alpha = per_bit(alpha, code_s.ndim)
    keep, change = jnp.log1p(alpha), jnp.log1p(-alpha)
    return jnp.logaddexp(keep + others, change) - jnp.logaddexp(change + others, keep)
