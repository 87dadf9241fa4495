"""A named term of a loss: its weight, the step it starts at, and how the weight is annealed."""

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
      name: the name it is logged under.
      weight: its factor once it has started and its annealing is over.
      start_step: the first step it counts at; before, its weight is exactly 0.
      initial_weight: the factor at `start_step`; from there the weight moves linearly to `weight`. None is `weight`
        itself.
      anneal_steps: how many steps that takes. MaskBit's entropy term is `weight=0.02, initial_weight=0.04,
        anneal_steps=2000`.

    Raises:
      ValueError: for a negative number of steps, a weight that is not finite, or an annealing that names only one of
      its two ends.
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
        """Whether it ever counts; a term that does not need not be computed."""
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
    """Σ weight_at(step) · mean(value), in float32, over the enabled terms; the values are per example (b,) or already
    scalar.

    A value of a disabled term may be absent. A value no term is named for is refused, since it would be dropped in
    silence.

    A term's factor of 0 does not silence a NaN: what is not finite before its start step must be left out by the
    caller.

    Raises:
      ValueError: for an enabled term without a value, or a value without a term.
    """
    named = {term.name for term in terms}
    if len(named) != len(terms):
        raise ValueError(f"two loss terms share a name: {sorted(term.name for term in terms)}")
    if stray := sorted(set(values) - named):
        raise ValueError(f"loss values {stray} have no term; the terms are {sorted(named)}")
    total = jnp.float32(0)
    for term in terms:
        if not term.enabled:
            continue
        if term.name not in values:
            raise ValueError(f"loss term {term.name!r} has no value; values were given for {sorted(values)}")
        total = total + term.weight_at(step) * jnp.mean(values[term.name].astype(jnp.float32))
    return total
