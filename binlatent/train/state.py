"""The train state of either stage, and the one rule by which it moves."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from binlatent.typing import Array, PyTree


@flax.struct.dataclass
class TrainState:
    """Everything that a run carries from step to step; the top-level names are what checkpoints are read by.

    `params`, `ema` (their moving average, which evaluation uses) and `opt_state` may hold several networks under names.
    `extra` holds what a stage carries besides (moving averages of a loss); `skipped` counts steps with a non-finite loss
    or gradient, which leave everything else as it was.
    """

    step: Any  # int32; like every field, a shape or a sharding where the state is described and not there
    params: Any
    ema: Any
    opt_state: Any
    extra: Any
    skipped: Any

    @classmethod
    def create(cls, params, opt_state, extra=None) -> "TrainState":
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=opt_state,
            extra={} if extra is None else extra,
            skipped=jnp.zeros((), jnp.int32),
        )

    def advance(self, *, params, opt_state, finite: Array, ema_decay: float, extra=None) -> "TrainState":
        """The next state: the new values where `finite`, otherwise the old ones with one more step `skipped`.

        The average warms up: its decay is min(ema_decay, (1 + step) / (10 + step)).
        """
        decay = jnp.minimum(ema_decay, (1 + self.step) / (10 + self.step))
        moved = (
            params,
            optax.incremental_update(params, self.ema, 1 - decay),
            opt_state,
            extra if extra else self.extra,
        )
        kept = (self.params, self.ema, self.opt_state, self.extra)
        params, ema, opt_state, extra = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, kept)
        return TrainState(
            step=self.step + 1,
            params=params,
            ema=ema,
            opt_state=opt_state,
            extra=extra,
            skipped=self.skipped + jnp.where(finite, 0, 1),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained network.

    Attributes:
      net: the module.
      params: its EMA parameters, on every device of the mesh.
      step: the training step they are of.
      metadata: what the checkpoint says of itself.
    """

    net: nn.Module
    params: PyTree
    step: int
    metadata: dict[str, Any]
