"""Noise schedules: the keep probability α(t), 1 at t = 0 (data) and 0 at t = 1 (noise).

A schedule is a frozen dataclass and a function of continuous time; a T-step chain is its values at t = i/T.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Float

Schedule = Callable[[Float[Array, "*b"]], Float[Array, "*b"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """α = 1 − t, the schedule of the paper."""

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return 1 - t


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """α = (1 + cos πt) / 2."""

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        # the same, without the cancellation near t = 1, where ratios of two α are needed
        return jnp.sin(jnp.pi / 2 * (1 - t)) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """A falling sigmoid between 0 and 3 at temperature 0.8, rescaled to run from 1 to 0 (the release's numbers)."""

    start: ClassVar[float] = 0.0
    end: ClassVar[float] = 3.0
    tau: ClassVar[float] = 0.8

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        # (σ(−u) − σ(−u₁)) / (σ(−u₀) − σ(−u₁)) as a product: no cancellation near t = 1, where ratios of two α are needed
        first, length = self.start / self.tau, (self.end - self.start) / self.tau

        def part(u):
            return jax.nn.sigmoid(first + length * u), jnp.exp(-length * u) * jnp.expm1(-length * (1 - u))

        (a, b), (a_0, b_0) = part(t), part(jnp.zeros_like(t))
        return (a / a_0) * (b / b_0)


SCHEDULES = {"linear": Linear, "cosine": Cosine, "sigmoid": Sigmoid}


def schedule(name: str) -> Schedule:
    """The schedule of a name.

    Raises:
      ValueError: there is no such schedule.
    """
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]()
