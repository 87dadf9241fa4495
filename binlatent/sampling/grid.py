"""The times that a sampler visits."""

import jax.numpy as jnp

from binlatent.typing import Array, Float


def time_grid(steps: int, *, start: float = 1.0) -> Float[Array, "n"]:
    """steps + 1 falling times from `start` to 0: start · i/steps, i = steps … 0.

    Args:
      steps: how many reverse steps; at least 1.
      start: the first time; 1 is pure noise, less starts from a noised code.

    Raises:
      ValueError: a value out of range.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: sampling needs at least 1 step")
    if not 0 < start <= 1:
        raise ValueError(f"start is {start}: a time in (0, 1] is expected")
    return start * jnp.arange(steps, -1, -1) / steps
