"""Stage 2: the Bernoulli diffusion model of codes."""

import dataclasses

import jax
import jax.numpy as jnp

from binlatent import bits, prng
from binlatent.diffusion import elbo
from binlatent.diffusion.objective import Objective, low_discrepancy_times
from binlatent.train import metrics
from binlatent.train.optimizer import all_finite, value_and_grad
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.typing import Array, PRNGKey, PyTree

LIKELIHOOD_STEPS = 256  # T of the bound that validation estimates, one term an example


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PriorStage(Stage):
    """Trains a denoiser on packed codes; the encoder has no part in it.

    A batch holds `code` uint8 (b, n), and `label` int (b,) or `condition` float where the model is conditional;
    validation batches hold a `mask` (b,).

    Attributes:
      net: the denoiser: (code, t, condition, keep) → flip log-odds.
      code_shape: (y, x, k).
      condition: the batch's key of the condition, `label` or `condition`; None for an unconditional model.
      objective: the loss.
      label_dropout: probability, an example, of training with the null condition (for guidance).
      optimizer, num_steps, micro_batches: see `Optimizer` and `Training`.
    """

    code_shape: tuple[int, int, int]
    condition: str | None
    objective: Objective
    label_dropout: float
    micro_batches: int = 1

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state; of `batch` only the shapes are used."""
        code, t = jnp.zeros((1, *self.code_shape), bool), jnp.zeros(1)
        condition = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), self._condition(batch))
        params = {"denoiser": self.net.init(key, code, t, condition)["params"]}
        return TrainState.create(params, self.optimizer.build(self.num_steps).init(params))

    def _condition(self, batch):
        return None if self.condition is None else batch[self.condition]

    def _denoise(self, params, code_t, t, condition, keep=None):
        return self.net.apply({"params": params["denoiser"]}, code_t, t, condition, keep)

    def loss(self, params: PyTree, batch: PyTree, noise: PyTree) -> tuple[Array, dict[str, Array]]:
        """Mean loss and its terms, for given noise (`t`, `keep` and `key`, one each an example)."""
        code = bits.unpack(batch["code"], self.code_shape)
        code_t = self.objective.corrupt(prng.uniform(noise["key"], self.code_shape), code, noise["t"])
        flip_logits = self._denoise(params, code_t, noise["t"], self._condition(batch), noise["keep"])
        terms = self.objective(flip_logits, code, code_t, noise["t"])
        means = {name: value.mean() for name, value in terms.items()}
        return means.pop("loss"), means

    def noise(self, key: PRNGKey, num: int) -> PyTree:
        """The randomness of a batch: times, which examples keep their condition, and a key an example."""
        key_t, key_keep, key_bits = (jax.random.fold_in(key, i) for i in range(3))
        return {
            "t": low_discrepancy_times(key_t, num),
            "keep": jax.random.uniform(key_keep, (num,)) >= self.label_dropout,
            "key": prng.per_example(key_bits, num),
        }

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step; metrics are scalars."""
        noise = self.noise(key, batch["code"].shape[0])
        loss, values, grads = value_and_grad(self.loss, state.params, batch, noise, micro_batches=self.micro_batches)
        finite = all_finite(loss, grads)
        params, opt_state = self.optimizer.update(grads, state.opt_state, state.params, self.num_steps)
        new_state = state.advance(params=params, opt_state=opt_state, finite=finite, ema_decay=self.optimizer.ema_decay)
        return new_state, {"loss": loss, **values, "finite": finite, "skipped": new_state.skipped}

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict:
        """Loss terms and an unbiased estimate of the bound, of the EMA parameters."""
        code, mask = bits.unpack(batch["code"], self.code_shape), batch["mask"]
        condition, num = self._condition(batch), batch["code"].shape[0]
        noise = self.noise(jax.random.fold_in(key, 0), num)

        def denoise(code_t, t):
            return self._denoise(state.ema, code_t, t, condition)

        def calibrated(code_t, t):
            return self.objective.calibrate(denoise(code_t, t), t)

        code_t = self.objective.corrupt(prng.uniform(noise["key"], self.code_shape), code, noise["t"])
        terms = self.objective(denoise(code_t, noise["t"]), code, code_t, noise["t"])
        values = {name: metrics.mean(value, mask) for name, value in terms.items()}

        key_index, key_bits = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
        index = 1 + (low_discrepancy_times(key_index, num) * LIKELIHOOD_STEPS).astype(jnp.int32)
        uniform = prng.uniform(prng.per_example(key_bits, num), self.code_shape)
        bound = LIKELIHOOD_STEPS * elbo.term(
            calibrated, uniform, code, index, schedule=self.objective.schedule, steps=LIKELIHOOD_STEPS
        )
        y, x, k = self.code_shape
        return values | {"bits_per_bit": metrics.mean(bound / (y * x * k), mask)}
