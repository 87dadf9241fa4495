"""Classifier-free guidance on flip log-odds: f = (1 + w) f_cond − w f_uncond."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Denoise, Float

# (code, t, condition, keep) -> flip log-odds; keep (b,) is False where the condition is replaced by the null
ConditionalDenoise = Callable[[Array, Array, Any, Array | None], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """When guidance acts, and how its weight changes with time.

    Attributes:
      interval: times [low, high] at which guidance acts; outside, the conditional estimate is used as it is
        (Kynkäänniemi et al., 2024).
      power: the weight is w · (1 − t)^power: 0 is constant, more guides late, near the data (as MaskBit does).

    Raises:
      ValueError: an interval that is not within [0, 1], or a negative power.
    """

    interval: tuple[float, float] = (0.0, 1.0)
    power: float = 0.0

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance interval {self.interval} is not within [0, 1]")
        if self.power < 0:
            raise ValueError(f"guidance power {self.power} is negative")

    def weight_at(self, weight: float | Array, t: Float[Array, "b"]) -> Float[Array, "b"]:
        low, high = self.interval
        return jnp.where((t >= low) & (t <= high), weight * (1 - t) ** self.power if self.power else weight, 0.0)


def bind(denoise: ConditionalDenoise, condition: Any) -> Denoise:
    """The conditional estimate, without guidance."""
    return lambda code, t: denoise(code, t, condition, None)


def guide(denoise: ConditionalDenoise, condition: Any, weight: float | Array, guidance: Guidance) -> Denoise:
    """The guided estimate; both branches go through the network in one batched call.

    `weight` may be a traced scalar. A weight of 0 gives the conditional estimate exactly (at twice the price: use `bind`
    where it is known to be 0).
    """

    def guided(code, t):
        b = code.shape[0]

        def twice(a):
            return jnp.concatenate([a, a])

        keep = jnp.arange(2 * b) < b
        flips = denoise(twice(code), twice(t), jax.tree.map(twice, condition), keep)
        conditional, unconditional = flips[:b], flips[b:]
        w = guidance.weight_at(weight, t).reshape(-1, *(1,) * (code.ndim - 1))
        return conditional + w * (conditional - unconditional)

    return guided
