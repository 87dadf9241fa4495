"""What the denoiser is trained on: cross-entropy on the bits that the forward process flipped."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from binlatent.diffusion import prediction as prediction_lib
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Float, Prediction, PRNGKey

WEIGHTINGS = ("uniform", "balanced")
MOST_PER_TIME = 64.0  # cap of 1/(t − s), which turns the auxiliary term into a rate


def low_discrepancy_times(key: PRNGKey, num: int) -> Float[Array, "b"]:
    """t ~ U(0, 1) for every example, spread evenly over the global batch: one random offset plus i/num, modulo 1."""
    return (jax.random.uniform(key) + jnp.arange(num) / num) % 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of the prior, one value an example, and how the network's output is to be read.

    Attributes:
      weighting: `uniform`; or `balanced`, the release's default, where each flip is weighted by the example's share of
        unflipped bits and each non-flip by its share of flipped bits. The balanced loss is computed on g itself: its weights
        cancel the channel's evidence.
      parametrization: what the network gives: `leave_one_out` log-odds g, to which o(t) is added here, or `flip` log-odds f
        (models of the release trained without balance). See `diffusion.prediction`.
      auxiliary: weight of KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) / (t − s) at an s < t, the true reverse step against the
        modelled marginals; the quotient is capped at 64 times the KL.
      total_steps: 0 for continuous time; T > 0 trains at times i/T only and takes s = t − 1/T, as the release does.

    Raises:
      ValueError: an unknown weighting or parametrization, two that contradict each other, or negative numbers.
    """

    schedule: Schedule
    weighting: str = "uniform"
    parametrization: str = "leave_one_out"
    auxiliary: float = 0.0
    total_steps: int = 0

    def __post_init__(self):
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"no weighting {self.weighting!r}; there are {', '.join(WEIGHTINGS)}")
        known = prediction_lib.PARAMETRIZATIONS
        if self.parametrization not in known:
            raise ValueError(f"no parametrization {self.parametrization!r}; there are {', '.join(known)}")
        if self.weighting == "balanced" and self.parametrization == "flip":
            raise ValueError("the balanced loss learns leave-one-out log-odds: set parametrization to 'leave_one_out'")
        if self.auxiliary < 0 or self.total_steps < 0:
            raise ValueError(f"auxiliary is {self.auxiliary}, total_steps {self.total_steps}: at least 0 is expected")

    def times(self, t: Float[Array, "b"]) -> Float[Array, "b"]:
        """Times U(0, 1) as those that are trained at: the same, or the next i/T, i = 1 … T."""
        return jnp.clip(jnp.ceil(t * self.total_steps), 1) / self.total_steps if self.total_steps else t

    def earlier(self, t: Float[Array, "b"], uniform: Float[Array, "b"]) -> Float[Array, "b"]:
        """s of the auxiliary term, U(0, t) or the grid's time before t."""
        return jnp.maximum(t - 1 / self.total_steps, 0.0) if self.total_steps else t * uniform

    def corrupt(
        self, uniform: Float[Array, "b *bits"], code: Bool[Array, "b *bits"], t: Float[Array, "b"]
    ) -> Bool[Array, "b *bits"]:
        """z_t from z_0 and one U[0, 1) draw a bit."""
        return process.corrupt(uniform, code, self.schedule(t))

    def temper(self, output: Prediction, t: Float[Array, "b"], temperature) -> Prediction:
        """The network's output with g divided by the temperature."""
        return prediction_lib.temper(
            output, t, temperature, schedule=self.schedule, parametrization=self.parametrization
        )

    def calibrate(self, output: Prediction, t: Float[Array, "b"]) -> Prediction:
        """Flip log-odds given all of z_t, from the network's output."""
        return prediction_lib.calibrate(output, t, schedule=self.schedule, parametrization=self.parametrization)

    def __call__(
        self,
        output: Prediction,
        code: Bool[Array, "b *bits"],
        code_t: Bool[Array, "b *bits"],
        t: Float[Array, "b"],
        s: Float[Array, "b"] | None = None,
    ) -> dict[str, Float[Array, "b"]]:
        """The terms of each example: `loss` is the one to minimise, the others are to be logged.

        Args:
          output: of the network at (code_t, t).
          s: the earlier times of the auxiliary term, s < t; not used without it.

        Returns:
          `loss`; `flip_cross_entropy` (−log p(z_0 | z_t), nats a bit, unweighted); `flip_accuracy`; `auxiliary` (KL of a
          unit of time, nats a bit) where it has a weight.

        Raises:
          ValueError: the balanced loss of a mixture, which is not defined, or no `s` for the auxiliary term.
        """
        bits = tuple(range(1, code.ndim))
        flipped = code ^ code_t
        output = jax.tree.map(lambda x: x.astype(jnp.float32), output)
        calibrated = self.calibrate(output, t)
        terms = {
            "flip_cross_entropy": -process.log_probability(calibrated, flipped) / math.prod(code.shape[1:]),
            "flip_accuracy": ((prediction_lib.marginal(calibrated) > 0) == flipped).mean(bits),
        }
        loss = terms["flip_cross_entropy"]
        if self.weighting == "balanced":
            if output.logits.shape[-2] > 1:
                raise ValueError("the balanced loss is of independent bits: set the network's components to 1")
            share = flipped.mean(bits, keepdims=True)
            signed = jnp.where(flipped, output.logits[..., 0, :], -output.logits[..., 0, :])
            loss = -(jax.nn.log_sigmoid(signed) * jnp.where(flipped, 1 - share, share)).mean(bits)
        if self.auxiliary:
            if s is None:
                raise ValueError("the auxiliary term needs s, the times of its earlier end")
            kl = process.marginal_divergence(calibrated, flipped, self.schedule(t), self.schedule(s)).mean(bits)
            terms["auxiliary"] = kl / jnp.maximum(t - s, 1 / MOST_PER_TIME)
            loss = loss + self.auxiliary * terms["auxiliary"]
        return {"loss": loss, **terms}
