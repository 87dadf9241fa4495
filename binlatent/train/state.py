"""The train state of all stages, and its update."""

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
    """Everything that a run carries from step to step. Checkpoints are read by these field names.

    `params`, `ema` (EMA parameters, which evaluation uses) and `opt_state` may be dicts by network. `extra` is other state
    of a stage, such as batch statistics. `skipped` counts steps with a non-finite loss or gradient, which change nothing
    else.
    """

    step: Any  # int32; like every field, it may be a shape or a sharding instead of an array
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
        """The next state: the new values if `finite`, otherwise the old ones with `skipped` incremented.

        The EMA warms up: its decay is min(ema_decay, (1 + step) / (10 + step)).
        """
        decay = jnp.minimum(ema_decay, (1 + self.step) / (10 + self.step))
        new_values = (
            params,
            optax.incremental_update(params, self.ema, 1 - decay),
            opt_state,
            extra if extra else self.extra,
        )
        old_values = (self.params, self.ema, self.opt_state, self.extra)
        params, ema, opt_state, extra = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), new_values, old_values
        )
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
    """A trained network.

    Attributes:
      net: the module.
      params: its EMA parameters, replicated.
      step: their training step.
      metadata: the checkpoint's metadata; {} while it is trained.
    """

    net: nn.Module
    params: PyTree
    step: int = 0
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        count = sum(x.size for x in jax.tree.leaves(self.params))
        more = ""
        if decoder := self.metadata.get("decoder"):
            more = f", its decoder trained on for {decoder['step']} steps"
        if student := self.metadata.get("student"):
            more = f", a student of {student['steps']} sampling steps"
        return f"{type(self.net).__name__} of {count:,} parameters at step {self.step}{more}"
