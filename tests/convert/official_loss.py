"""The release's training loss, in all its variants, against which `configs/release.py` and `diffusion.objective` are held.

`diffusion.objective` is what priors are trained on here. The two agree where they should: `focal` −1 is its `uniform`
weighting, and `focal` 0 its `balanced` one. An objective of this class takes the place of that one in a `PriorStage`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Float, Prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialLoss:
    """The loss of a discrete chain of `total_steps`, one value per example.

    The release's models of z_0 (`p_flip` false) need no variant: cross-entropy is the same for a bit and its flip.

    Attributes:
      schedule: α(t).
      total_steps: T; t is taken as the nearest i/T, i = 1…T.
      focal: −1 for plain cross-entropy. From 0 on, each flip is weighted by the example's share of unflipped bits, each
        non-flip by its share of flipped bits, and both by (1 − probability of the truth)^focal.
      weighted: `loss_final` is `weighted`: examples are weighted by 1 − (i − 1)/T.
      auxiliary: weight of the cross-entropy between the true reverse step from i to i − 1 and the `plugin` step (the
        estimate itself at i = 1); `aux`.
    """

    schedule: Schedule
    total_steps: int
    focal: float = 0.0
    weighted: bool = False
    auxiliary: float = 0.0

    def corrupt(
        self, uniform: Float[Array, "b *bits"], code: Bool[Array, "b *bits"], t: Float[Array, "b"]
    ) -> Bool[Array, "b *bits"]:
        """z_t from z_0 and one U[0, 1) draw per bit."""
        return process.corrupt(uniform, code, self.schedule(self._index(t) / self.total_steps))

    def _index(self, t: Float[Array, "b"]) -> Float[Array, "b"]:
        return jnp.clip(jnp.round(t * self.total_steps), 1, self.total_steps)

    def __call__(
        self,
        output: Prediction,
        code: Bool[Array, "b *bits"],
        code_t: Bool[Array, "b *bits"],
        t: Float[Array, "b"],
        s: Float[Array, "b"] | None = None,
    ) -> dict[str, Float[Array, "b"]]:
        """`loss`, and its terms: `flip_cross_entropy` (the release's `bce_loss`, with `focal` but without the weight of
        time), `flip_accuracy`, and `auxiliary` where it has a weight."""
        bits = tuple(range(1, code.ndim))
        flipped, index = code ^ code_t, self._index(t)
        logits = output.logits[..., 0, :].astype(jnp.float32)
        values = optax.sigmoid_binary_cross_entropy(logits, flipped.astype(jnp.float32))
        if self.focal >= 0:
            share = flipped.mean(bits, keepdims=True)
            doubt = jax.nn.sigmoid(jnp.where(flipped, -logits, logits))
            values = values * jnp.where(flipped, 1 - share, share) * doubt**self.focal
        terms = {
            "flip_cross_entropy": values.mean(bits),
            "flip_accuracy": ((logits > 0) == flipped).mean(bits),
        }
        loss = terms["flip_cross_entropy"]
        if self.auxiliary:
            terms["auxiliary"] = self._auxiliary(logits, code, code_t, index).mean(bits)
            loss = loss + self.auxiliary * terms["auxiliary"]
        if self.weighted:
            loss = loss * (1 - (index - 1) / self.total_steps)
        return {"loss": loss, **terms}

    def _auxiliary(self, logits: Array, code: Array, code_t: Array, index: Array) -> Array:
        alpha_t, alpha_s = (self.schedule(i / self.total_steps) for i in (index, index - 1))
        true = process.posterior(code ^ code_t, alpha_t, alpha_s)
        plugin = process.reverse(logits, alpha_t, alpha_s, "plugin")
        estimate = (jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))
        first = process.per_bit(index == 1, code.ndim)
        flip, stay = (jnp.where(first, a, b) for a, b in zip(estimate, plugin, strict=True))
        return -jnp.exp(true.flip) * flip - jnp.exp(true.stay) * stay
