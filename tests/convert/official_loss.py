"""The release's training loss, in all its variants: to continue a released prior exactly as it was trained.

`diffusion.objective` is what priors are trained on here. The two agree where they should: `focal` −1 is its `uniform`
weighting, and `focal` 0 its `balanced` one. An objective of this class takes the place of that one in a `PriorStage`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedLoss:
    """The loss of a discrete chain of `total_steps`, one value an example.

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
        """z_t from z_0 and one U[0, 1) draw a bit."""
        return process.corrupt(uniform, code, self.schedule(self._index(t) / self.total_steps))

    def _index(self, t: Float[Array, "b"]) -> Float[Array, "b"]:
        return jnp.clip(jnp.round(t * self.total_steps), 1, self.total_steps)

    def __call__(
        self,
        flip_logits: Float[Array, "b *bits"],
        code: Bool[Array, "b *bits"],
        code_t: Bool[Array, "b *bits"],
        t: Float[Array, "b"],
    ) -> dict[str, Float[Array, "b"]]:
        """`loss`, and its terms: `flip_cross_entropy` (the release's `bce_loss`, with `focal` but without the weight of
        time), `flip_accuracy`, and `auxiliary` where it has a weight."""
        bits = tuple(range(1, code.ndim))
        flipped, index = code ^ code_t, self._index(t)
        logits = flip_logits.astype(jnp.float32)
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
        true = process.posterior(code_t, code, alpha_t, alpha_s)
        plugin = process.reverse(code_t, logits, alpha_t, alpha_s, "plugin")
        estimate = process.estimate(code_t, logits)
        first = process.per_bit(index == 1, code.ndim)
        one, zero = (jnp.where(first, a, b) for a, b in zip(estimate, plugin, strict=True))
        xlogy = jax.scipy.special.xlogy
        return -xlogy(true.one, one) - xlogy(true.zero, zero)
