"""The sampler: a `lax.scan` over a time grid, for any denoise function."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.sampling.grid import time_grid
from binlatent.typing import Array, Bool, Denoise, Key

LAST_STEPS = ("sample", "argmax")

# (keys (b,), code z_s, α_s) -> code z_s with some bits replaced: editing's hook into every step
Clamp = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to get from noise to a code (ancestral sampling). Hashable, so it can be a static argument of jit.

    Attributes:
      schedule: α(t), the one that the denoiser was trained with.
      steps: how many network calls.
      posterior: `mixture` (exact for a perfect denoiser) or `plugin` (the release's).
      last_step: `sample` the last step like any other, or take its `argmax` (the release's).
      times: steps + 1 falling times from 1 to 0 for steps that are not equal; () for equal ones.

    Raises:
      ValueError: an unknown posterior or last step, or fewer than 1 step.
    """

    schedule: Schedule
    steps: int = 16
    posterior: str = "mixture"
    last_step: str = "sample"
    times: tuple[float, ...] = ()

    def __post_init__(self):
        if self.posterior not in process.POSTERIORS:
            raise ValueError(f"no posterior {self.posterior!r}; there are {', '.join(process.POSTERIORS)}")
        if self.last_step not in LAST_STEPS:
            raise ValueError(f"no last step {self.last_step!r}; there are {', '.join(LAST_STEPS)}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: sampling needs at least 1 step")
        if self.times and len(self.times) != self.steps + 1:
            raise ValueError(f"{len(self.times)} times are given for {self.steps} steps: {self.steps + 1} are expected")

    def noise(self, keys: Key[Array, "b"], shape: tuple[int, ...]) -> Bool[Array, "b *bits"]:
        """z_1: fair coins of `shape` for every key."""
        # index `steps` is used by no step
        return prng.uniform(prng.fold(keys, self.steps), shape) < 0.5

    def grid(self, start: float = 1.0) -> np.ndarray:
        """The steps + 1 falling times from `start` to 0, float32; also under `jit`."""
        with jax.ensure_compile_time_eval():
            return np.asarray(start * jnp.asarray(self.times) if self.times else time_grid(self.steps, start=start))

    def __call__(
        self,
        denoise: Denoise | Sequence[Denoise],
        keys: Key[Array, "b"],
        code: Bool[Array, "b *bits"],
        *,
        start: float = 1.0,
        clamp: Clamp | None = None,
        trajectory: bool = False,
        passes: int = 1,
    ):
        """Brings `code` from time `start` to 0.

        Args:
          denoise: (z_t, t) → prediction: flip log-odds f for the `mixture` step, the network's output for `plugin`. Or one
            such function a step; each run of equal ones is compiled as a loop.
          keys: one key an example: an example's result depends on its own key, not on the batch it is in.
          code: z at time `start`: `noise(keys, shape)` where that is 1.
          clamp: called on the start and after every step, see `sampling.editing`.
          trajectory: also return every state on the way.
          passes: how often each step is taken; in between the code is noised back to the step's beginning, so that the
            bits that are sampled and those that a clamp holds agree better (Lugmayr et al., 2022, RePaint).

        Returns:
          The code (b, …); with `trajectory` the pair (code, states (steps · passes + 1, b, …) from the start to the code).
        """
        times = jnp.asarray(self.grid(start))
        if clamp is not None:
            code = clamp(prng.fold(keys, self.steps + 1), code, self.schedule(times[0]))

        def step(denoise, code, inputs):
            number, i, t, s, back = inputs
            alpha_t, alpha_s = self.schedule(t), self.schedule(s)
            prediction = denoise(code, jnp.full(code.shape[:1], t))
            step_keys = prng.fold(keys, number)
            uniform = prng.uniform(prng.fold(step_keys, 0), code.shape[1:])
            choice = prng.uniform(prng.fold(step_keys, 2), code.shape[1:-1])
            code_choice = prng.uniform(prng.fold(step_keys, 4), ())
            flips = process.draw(prediction, uniform, choice, code_choice, alpha_t, alpha_s, self.posterior)
            if self.last_step == "argmax":
                # of the estimate itself: at s = 0 the plugin step would count z_t once more
                flips = jnp.where(i == self.steps - 1, process.likeliest(prediction), flips)
            next_code = code ^ flips
            if clamp is not None:
                next_code = clamp(prng.fold(step_keys, 1), next_code, alpha_s)
            if passes > 1:
                uniform = prng.uniform(prng.fold(step_keys, 3), code.shape[1:])
                next_code = jnp.where(back, process.corrupt(uniform, next_code, alpha_t / alpha_s), next_code)
            return next_code, (next_code if trajectory else None)

        i, again = jnp.divmod(jnp.arange(self.steps * passes, dtype=jnp.uint32), passes)
        number = i + again * (self.steps + 2)  # of the first pass the step's own; steps and steps + 1 are taken above
        inputs = number, i, times[i], times[i + 1], again < passes - 1
        functions = denoise if isinstance(denoise, Sequence) else [denoise] * self.steps
        if len(functions) != self.steps:
            raise ValueError(f"{len(functions)} denoise functions are given for {self.steps} steps")
        states, done = [code[None]], 0
        for function, group in itertools.groupby(functions):
            rows = slice(done, done := done + passes * len(list(group)))
            code, found = jax.lax.scan(
                partial(step, function), code, jax.tree.map(lambda x, rows=rows: x[rows], inputs)
            )
            states.append(found)
        return (code, jnp.concatenate(states)) if trajectory else code
