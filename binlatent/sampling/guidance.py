"""Classifier-free guidance of a denoiser's output: (1 + w) · conditional − w · unconditional.

On flip log-odds it is the same for f as for g, since the channel's evidence cancels. A mixture is guided component by component,
its log-weights by the same formula: a component that the condition makes likelier is drawn more often still.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.typing import Array, Denoise, Float

# (condition, condition_mask) -> denoiser of that condition; the mask (b,) is False where it is replaced by the null
ConditionalDenoise = Callable[[Any, Array | None], Denoise]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """When guidance acts, and how its weight changes with time.

    Attributes:
      interval: times [low, high] at which guidance acts; outside, the conditional estimate is used as it is
        (Kynkäänniemi et al., 2024).
      guidance_power: the weight is w · (1 − t)^guidance_power: 0 is constant, more guides late, near the data (as MaskBit does).

    Raises:
      ValueError: an interval that is not within [0, 1], or a negative power.
    """

    interval: tuple[float, float] = (0.0, 1.0)
    guidance_power: float = 0.0

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance interval {self.interval} is not within [0, 1]")
        if self.guidance_power < 0:
            raise ValueError(f"guidance_power {self.guidance_power} is negative")

    def acts(self, t: np.float32 | Array) -> np.bool_ | Array:
        """Whether times are within the interval; elsewhere the unconditional estimate is not needed."""
        low, high = self.interval
        return (t >= low) & (t <= high)

    def weight_at(self, weight: float | Array, t: Float[Array, "b"]) -> Float[Array, "b"]:
        """The weight at times t; `weight` is w."""
        weight = weight * (1 - t) ** self.guidance_power if self.guidance_power else weight
        return jnp.where(self.acts(t), weight, 0.0)


def guide(
    denoise: ConditionalDenoise, condition: Any, weight: float | Array, guidance: Guidance, negative: Any = None
) -> Denoise:
    """The guided estimate; both branches go through the network in one batched call.

    `weight` may be a traced scalar; `negative` is a condition to lead away from, in place of the null. A weight of 0 gives
    the conditional estimate exactly (at twice the price: use `denoise(condition, None)` where guidance does not act).
    """
    b = jax.tree.leaves(condition)[0].shape[0]

    def twice(a):
        return jnp.concatenate([a, a])

    if negative is None:
        both, mask = jax.tree.map(twice, condition), jnp.arange(2 * b) < b
    else:
        both, mask = jax.tree.map(lambda *pair: jnp.concatenate(pair), condition, negative), None
    denoise_both = denoise(both, mask)

    def guided(code, t):
        output = denoise_both(twice(code), twice(t))
        w = guidance.weight_at(weight, t)
        return jax.tree.map(lambda a: a[:b] + w.reshape(-1, *(1,) * (a.ndim - 1)) * (a[:b] - a[b:]), output)

    return guided
