"""Noise schedules: the keep probability α(t), 1 at t = 0 (data) and 0 at t = 1 (noise).

A schedule is a frozen dataclass and a function of continuous time; a T-step chain is its values at t = i/T.
"""

import dataclasses
from collections.abc import Callable

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
        return (1 + jnp.cos(jnp.pi * t)) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """A falling sigmoid between `start` and `end` at temperature `tau`, rescaled to run from 1 to 0 (the release)."""

    start: float = 0.0
    end: float = 3.0
    tau: float = 0.8

    def __call__(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        def value(u):
            return jax.nn.sigmoid(-(self.start + (self.end - self.start) * u) / self.tau)

        first, last = value(jnp.zeros_like(t)), value(jnp.ones_like(t))
        return (value(t) - last) / (first - last)


SCHEDULES = {"linear": Linear, "cosine": Cosine, "sigmoid": Sigmoid}


def schedule(name: str, **options) -> Schedule:
    """The schedule of a name, e.g. `schedule("sigmoid", tau=0.8)`.

    Raises:
      ValueError: there is no such schedule.
    """
    if name not in SCHEDULES:
        raise ValueError(f"no schedule {name!r}; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name](**options)
