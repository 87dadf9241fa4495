"""What the denoiser is trained on: cross-entropy on the bits that the forward process flipped."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Float, PRNGKey

WEIGHTINGS = ("uniform", "weighted", "balanced")


def low_discrepancy_times(key: PRNGKey, num: int) -> Float[Array, "b"]:
    """t ~ U(0, 1) for every example, spread evenly over the global batch: one random offset plus i/num, modulo 1."""
    return (jax.random.uniform(key) + jnp.arange(num) / num) % 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of the prior, one value an example.

    Attributes:
      weighting: `uniform`; `weighted`, 1 − t (the paper's variant); or `balanced`, the release's default, where each flip
        is weighted by the example's share of unflipped bits and each non-flip by its share of flipped bits. What
        `balanced` learns is not calibrated: see `calibrate`.
      auxiliary: weight of KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)), the true reverse step against the modelled one.
      auxiliary_interval: t − s of that reverse step (s stops at 0).
      posterior: the reverse step that the auxiliary term models.

    Raises:
      ValueError: an unknown weighting or posterior.
    """

    schedule: Schedule
    weighting: str = "uniform"
    auxiliary: float = 0.0
    auxiliary_interval: float = 1 / 64
    posterior: str = "mixture"

    def __post_init__(self):
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"no weighting {self.weighting!r}; there are {', '.join(WEIGHTINGS)}")
        if self.posterior not in process.POSTERIORS:
            raise ValueError(f"no posterior {self.posterior!r}; there are {', '.join(process.POSTERIORS)}")

    def corrupt(
        self, uniform: Float[Array, "b *bits"], code: Bool[Array, "b *bits"], t: Float[Array, "b"]
    ) -> Bool[Array, "b *bits"]:
        """z_t from z_0 and one U[0, 1) draw a bit."""
        return process.corrupt(uniform, code, self.schedule(t))

    def calibrate(self, flip_logits: Float[Array, "b *bits"], t: Float[Array, "b"]) -> Float[Array, "b *bits"]:
        """Log-odds that a bit is flipped, given all of z_t, from the network's output.

        They are the output itself, but for `balanced`. There the best output is lower in evidence by exactly what z_t
        says of its own bit, log((1 + α)/(1 − α)): it is P(z_0 | the other bits of z_t). The `plugin` step brings that
        evidence in again and is exact for such an output; the `mixture` step and likelihoods need it put back.
        """
        if self.weighting != "balanced":
            return flip_logits
        alpha = process.per_bit(self.schedule(t), flip_logits.ndim)
        return flip_logits + jnp.log1p(-alpha) - jnp.log1p(alpha)

    def __call__(
        self,
        flip_logits: Float[Array, "b *bits"],
        code: Bool[Array, "b *bits"],
        code_t: Bool[Array, "b *bits"],
        t: Float[Array, "b"],
    ) -> dict[str, Float[Array, "b"]]:
        """The terms of each example: `loss` is the one to minimise, the others are to be logged.

        Returns:
          `loss`; `flip_cross_entropy` (nats a bit, unweighted); `flip_accuracy`; `auxiliary` where it has a weight.
        """
        bits = tuple(range(1, code.ndim))
        flipped = code ^ code_t
        logits = flip_logits.astype(jnp.float32)
        cross_entropy = optax.sigmoid_binary_cross_entropy(logits, flipped.astype(jnp.float32))
        terms = {
            "flip_cross_entropy": cross_entropy.mean(bits),
            "flip_accuracy": ((logits > 0) == flipped).mean(bits),
        }
        if self.weighting == "balanced":
            share = flipped.mean(bits, keepdims=True)
            loss = (cross_entropy * jnp.where(flipped, 1 - share, share)).mean(bits)
        else:
            loss = terms["flip_cross_entropy"]
            if self.weighting == "weighted":
                loss = loss * (1 - t)
        if self.auxiliary:
            alpha_t, alpha_s = self.schedule(t), self.schedule(jnp.maximum(t - self.auxiliary_interval, 0.0))
            true = process.posterior(code_t, code, alpha_t, alpha_s)
            learned = self.calibrate(logits, t) if self.posterior == "mixture" else logits
            modelled = process.reverse(code_t, learned, alpha_t, alpha_s, self.posterior)
            terms["auxiliary"] = process.kl(true, modelled).mean(bits)
            loss = loss + self.auxiliary * terms["auxiliary"]
        return {"loss": loss, **terms}
