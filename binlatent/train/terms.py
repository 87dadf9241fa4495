"""A named loss term: its weight, start step and annealing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import optax

from binlatent.typing import Array, Float

Weight = Float[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """One term of a loss.

    Attributes:
      name: the name under which it is logged.
      weight: its weight after the annealing.
      start_step: before this step, its weight is exactly 0.
      initial_weight: its weight at `start_step`, from where it is annealed linearly to `weight`; None for no annealing.
      anneal_steps: number of annealing steps. MaskBit's entropy term is `weight=0.02, initial_weight=0.04,
        anneal_steps=2000`.

    Raises:
      ValueError: a number of steps is negative, a weight is not finite, or only one of `initial_weight` and
        `anneal_steps` is set.
    """

    name: str
    weight: float | int = 1.0
    start_step: int = 0
    initial_weight: float | int | None = None
    anneal_steps: int = 0

    def __post_init__(self) -> None:
        for field in ("start_step", "anneal_steps"):
            if getattr(self, field) < 0:
                raise ValueError(f"term {self.name!r}: {field} is {getattr(self, field)}, expected 0 or more")
        for field in ("weight", "initial_weight"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"term {self.name!r}: {field} is {value}, expected a finite number")
        if (self.initial_weight is None) != (self.anneal_steps == 0):
            raise ValueError(
                f"term {self.name!r}: initial_weight is {self.initial_weight} and anneal_steps is {self.anneal_steps}; "
                "set both to anneal the weight, or neither"
            )

    @property
    def enabled(self) -> bool:
        """Whether its weight is ever nonzero; otherwise it need not be computed."""
        return self.weight != 0 or bool(self.initial_weight)

    def weight_at(self, step: Array | int) -> Weight:
        """The weight at `step`, a float32 scalar; `step` may be traced."""
        count = jnp.asarray(step) - self.start_step
        if self.initial_weight is None:
            weight = jnp.float32(self.weight)
        else:
            weight = optax.linear_schedule(self.initial_weight, self.weight, self.anneal_steps)(count)
        return jnp.where(count >= 0, weight, 0.0).astype(jnp.float32)


def weighted_sum(terms: Sequence[Term], values: Mapping[str, Array], step: Array | int) -> Weight:
    """Σ weight_at(step) · mean(value) over the enabled terms, in float32; values are per example (b,) or scalar.

    Disabled terms need no value. A value without a term is an error, because it would be ignored silently.

    A weight of 0 does not suppress NaN: the caller must omit values that are not finite before their start step.

    Raises:
      ValueError: an enabled term has no value, or a value has no term.
    """
    named = {term.name for term in terms}
    if len(named) != len(terms):
        raise ValueError(f"two loss terms share a name: {sorted(term.name for term in terms)}")
    if unnamed := sorted(set(values) - named):
        raise ValueError(f"loss values {unnamed} have no term; the terms are {sorted(named)}")
    total = jnp.float32(0)
    for term in terms:
        if not term.enabled:
            continue
        if term.name not in values:
            raise ValueError(f"loss term {term.name!r} has no value; values were given for {sorted(values)}")
        total = total + term.weight_at(step) * jnp.mean(values[term.name].astype(jnp.float32))
    return total
