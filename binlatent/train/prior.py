"""Stage 2: the Bernoulli diffusion model of codes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent import bits, prng
from binlatent.diffusion import elbo
from binlatent.diffusion.objective import Objective, low_discrepancy_times
from binlatent.nets.condition import Condition
from binlatent.train import metrics
from binlatent.train.optimizer import all_finite, value_and_grad
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.typing import Array, PRNGKey, PyTree

LIKELIHOOD_STEPS = 256  # T of the bound that validation estimates
LIKELIHOOD_DRAWS = 16  # random terms of it, an example: the estimate's error is reported, see `eval_step`


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PriorStage(Stage):
    """Trains a denoiser on packed codes; the encoder has no part in it.

    A batch holds `code` uint8 (b, n), and the parts of a `Condition` by name where the model is conditional; validation
    batches hold a `mask` (b,).

    Attributes:
      net: the denoiser: (code, t, condition, condition_mask) → prediction.
      code_shape: (y, x, k).
      objective: the loss.
      label_dropout: probability, an example, of training with the null condition (for guidance).
      optimizer, num_steps, micro_batches: see `Optimizer` and `Training`.
    """

    code_shape: tuple[int, int, int]
    objective: Objective
    label_dropout: float
    micro_batches: int = 1

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state; of `batch` only the shapes are used."""
        params = {"denoiser": init_denoiser(self.net, self.code_shape, key, batch)}
        return TrainState.create(params, self.optimizer.build(self.num_steps).init(params))

    def _denoise(self, params, code_t, t, condition, condition_mask=None):
        return self.net.apply({"params": params["denoiser"]}, code_t, t, condition, condition_mask)

    def loss(self, params: PyTree, batch: PyTree, noise: PyTree) -> tuple[Array, dict[str, Array]]:
        """Mean loss and its terms, for given noise (see `noise`)."""
        code = bits.unpack(batch["code"], self.code_shape)
        code_t = self.objective.corrupt(prng.uniform(noise["key"], self.code_shape), code, noise["t"])
        output = self._denoise(params, code_t, noise["t"], Condition.of(batch), noise["condition_mask"])
        terms = self.objective(output, code, code_t, noise["t"], noise["s"])
        means = {name: value.mean() for name, value in terms.items()}
        return means.pop("loss"), means

    def noise(self, key: PRNGKey, num: int) -> PyTree:
        """The randomness of a batch, one each an example: times `t` and `s` < t, `condition_mask` (which examples keep
        their condition) and a `key`."""
        key_t, key_mask, key_bits, key_s = (jax.random.fold_in(key, i) for i in range(4))
        t = self.objective.times(low_discrepancy_times(key_t, num))
        return {
            "t": t,
            "s": self.objective.earlier(t, jax.random.uniform(key_s, (num,))),
            "condition_mask": jax.random.uniform(key_mask, (num,)) >= self.label_dropout,
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
        """Loss terms and the bound, of the EMA parameters: `bits_per_bit`, and its standard error `bits_per_bit_error`.

        Every example is noised at `LIKELIHOOD_DRAWS` times of the T-step chain, spread evenly over the chain for each
        example and over the real examples (padding takes no part). The error is of the draws, not of the examples.
        """
        code, mask = bits.unpack(batch["code"], self.code_shape), batch["mask"]
        condition, (y, x, k) = Condition.of(batch), self.code_shape
        keys = prng.per_example(jax.random.fold_in(key, 0), code.shape[0])
        rank, num = jnp.cumsum(mask) - 1, jnp.maximum(mask.sum(), 1)
        offset = jax.random.uniform(jax.random.fold_in(key, 1))

        def draw(_, i):
            place = (i + (offset + rank / num) % 1.0) / LIKELIHOOD_DRAWS  # in [0, 1), even in each i
            index = 1 + jnp.minimum(place * LIKELIHOOD_STEPS, LIKELIHOOD_STEPS - 1).astype(jnp.int32)
            t, s = index / LIKELIHOOD_STEPS, (index - 1) / LIKELIHOOD_STEPS
            noise, uniform = (prng.uniform(prng.fold(prng.fold(keys, i), j), self.code_shape) for j in range(2))
            code_t = self.objective.corrupt(noise, code, t)
            output = self._denoise(state.ema, code_t, t, condition)
            terms = self.objective(output, code, code_t, t, s)
            bound = elbo.term(
                self.objective.calibrate(output, t), code ^ code_t, uniform, index,
                schedule=self.objective.schedule, steps=LIKELIHOOD_STEPS,
            )  # fmt: skip
            return None, terms | {"bits_per_bit": LIKELIHOOD_STEPS * bound / (y * x * k)}

        _, terms = jax.lax.scan(draw, None, jnp.arange(LIKELIHOOD_DRAWS, dtype=jnp.uint32))
        values = {name: metrics.mean(value.mean(0), mask) for name, value in terms.items()}
        return values | {"bits_per_bit_error": metrics.StandardError.from_draws(terms["bits_per_bit"], mask)}


def init_denoiser(net: nn.Module, code_shape: tuple[int, int, int], key: PRNGKey, batch: PyTree) -> PyTree:
    """Fresh parameters of a denoiser; of `batch` only the shapes are used."""
    code, t = jnp.zeros((1, *code_shape), bool), jnp.zeros(1)
    condition = jax.tree.map(lambda x: jnp.ones((1, *x.shape[1:]), x.dtype), Condition.of(batch))
    return net.init(key, code, t, condition)["params"]
