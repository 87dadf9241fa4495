"""AdamW for all stages, and gradients of a batch in micro-batches."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from binlatent.typing import PyTree

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with warm-up, gradient clipping and EMA parameters.

    Attributes:
      learning_rate: the peak learning rate.
      schedule: after the warm-up, `constant`, or `cosine` down to 0 at the last step.
      warmup_steps: steps of linear warm-up from 0.
      weight_decay: applied to kernels and embeddings only.
      clip_norm: the gradient is clipped to this global norm; 0 for no clipping.
      ema_decay: of the EMA parameters, which evaluation and sampling use.

    Raises:
      ValueError: an unknown schedule, or a number out of range.
    """

    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no learning-rate schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}")
        for name in ("learning_rate", "warmup_steps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: 0 or more is expected")
        for name in ("b1", "b2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: a number from 0 and below 1 is expected")

    def learning_rate_at(self, num_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, for a run of `num_steps`."""
        if self.schedule == "cosine":
            decay = optax.cosine_decay_schedule(self.learning_rate, max(num_steps - self.warmup_steps, 1))
        else:
            decay = optax.constant_schedule(self.learning_rate)
        if not self.warmup_steps:
            return decay
        warmup = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([warmup, decay], [self.warmup_steps])

    def build(self, num_steps: int) -> optax.GradientTransformation:
        """The optax transformation for a run of `num_steps`."""
        adamw = optax.adamw(
            self.learning_rate_at(num_steps), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=_is_matrix
        )
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw) if self.clip_norm else adamw

    def update(self, grads: PyTree, opt_state: PyTree, params: PyTree, num_steps: int) -> tuple[PyTree, PyTree]:
        """The parameters and the optimizer state after one step."""
        updates, opt_state = self.build(num_steps).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def _is_matrix(params: PyTree) -> PyTree:
    """True for kernels and embeddings, by name, because biases of scanned layers have two axes as well."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)


def value_and_grad(loss: Callable, params: PyTree, batch: PyTree, noise: PyTree, *, micro_batches: int = 1):
    """Mean loss, metrics and gradient of a batch, one micro-batch at a time; see `accumulate`.

    Args:
      loss: (params, batch, noise) → (mean loss, dict of mean metrics).
      batch, noise: arrays with a leading axis of examples.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, metrics), grads = accumulate(
        lambda *part: gradient(params, *part), batch, noise, micro_batches=micro_batches
    )
    return value, metrics, grads


def accumulate(function: Callable, batch: PyTree, noise: PyTree, *, micro_batches: int = 1) -> PyTree:
    """The mean of `function(batch, noise)` over micro-batches; the function must return means over examples.

    Every example has its own noise, so the result does not depend on the number n of micro-batches. Micro-batch j holds
    the examples j, j + n, j + 2n …, which keeps every example on its device.

    Raises:
      ValueError: the batch size is not divisible by the number of micro-batches.
    """
    if micro_batches == 1:
        return function(batch, noise)
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % micro_batches:
        raise ValueError(f"a batch of {size} is not divisible into {micro_batches} micro-batches")

    def split(a):
        a = jnp.moveaxis(a.reshape(size // micro_batches, micro_batches, *a.shape[1:]), 1, 0)
        # JAX's key-reuse checker treats transposed keys as used
        return jax.random.clone(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a

    parts = jax.tree.map(split, (batch, noise))
    first = jax.eval_shape(lambda: function(*jax.tree.map(lambda a: a[0], parts)))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), first)
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, function(*part)), None), zeros, parts)
    return jax.tree.map(lambda a: a / micro_batches, total)


def all_finite(loss, grads: PyTree):
    """Whether the loss and the global norm of the gradient are finite."""
    return jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
