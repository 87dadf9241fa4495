"""Distillation: a student of the prior that makes a code in a few steps, by moment matching (docs/few_steps.md)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent import bits, prng
from binlatent.diffusion import process
from binlatent.diffusion.matching import conditional_log_odds, log_odds_of_one
from binlatent.diffusion.objective import Objective, low_discrepancy_times
from binlatent.nets.condition import Condition
from binlatent.sampling.guidance import Guidance, guide
from binlatent.train import metrics
from binlatent.train.optimizer import Optimizer, accumulate, all_finite
from binlatent.train.prior import init_denoiser
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.typing import Array, Bool, Float, Prediction, PRNGKey, PyTree

# Times s at which teacher and auxiliary are compared: at 0 the channel has no noise, and at 1 the difference no weight.
EARLIEST, LATEST = 0.02, 0.98
LARGEST = 10.0  # differences of log-odds are cut off here


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StudentStage(Stage):
    """Trains a student of a frozen prior, and beside it an auxiliary denoiser that learns the student's codes.

    At one of its K times the student draws z_0 from a noised training code. z_0 is noised again to a random time s of the same
    step, so that the auxiliary knows from s which step a code is of. The student's means of the bits move so that the auxiliary
    and the teacher agree about z_s. The weights of its components have no such gradient: they, and the rest a little, go on
    learning the training codes, as the prior did. Student and auxiliary start as the teacher. Batches are those of `PriorStage`.

    Attributes:
      net: the student's network, and the auxiliary's; the teacher's but for its guidance, which may be an input here.
      code_shape, objective: the teacher's.
      steps: K; the student is trained at the times 1, (K − 1)/K, … 1/K, its step from t ends at t − 1/K.
      guidance: the largest weight of guidance, an input of the student; 0 for a student of the teacher without guidance.
      anchor: weight of the student's cross-entropy on the training codes.
      optimizer, auxiliary_optimizer: of the student and of the auxiliary, which must be the faster one.
      frozen: `teacher`, the prior's EMA parameters.
      num_steps, micro_batches: see `Training`.
    """

    code_shape: tuple[int, int, int]
    objective: Objective
    auxiliary_optimizer: Optimizer
    steps: int
    guidance: float
    anchor: float
    micro_batches: int = 1

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state with random parameters, to be replaced by the teacher's; of `batch` only the shapes are used."""
        student = init_denoiser(self.net, self.code_shape, key, batch)
        params = {"denoiser": student, "auxiliary": jax.tree.map(jnp.copy, student)}
        return TrainState.create(params, self.init_optimizers(params))

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The student's and the auxiliary's."""
        return {"denoiser": self.optimizer, "auxiliary": self.auxiliary_optimizer}

    def _guided(self, condition: Condition | None, weight: Float[Array, "b"]) -> Condition | None:
        """The condition of the student, with the weight of guidance where that is an input."""
        return dataclasses.replace(condition, guidance=weight) if condition is not None and self.guidance else condition

    def _read(self, output: Prediction, t: Array) -> Prediction:
        """Flip log-odds f in float32, from a network's output."""
        return self.objective.calibrate(jax.tree.map(lambda x: x.astype(jnp.float32), output), t)

    def _predict(self, params: PyTree, code_t: Array, t: Array, condition: Condition | None) -> Prediction:
        return self._read(self.net.apply({"params": params}, code_t, t, condition), t)

    def _teach(self, code_t: Array, t: Array, condition: Condition | None, weight: Array) -> Prediction:
        """The frozen teacher's prediction, guided by a weight for each example."""
        if not self.guidance:
            return self._predict(self.frozen["teacher"], code_t, t, condition)
        teacher = teacher_of(self.net)

        def denoise(condition, mask):
            return lambda z, t: teacher.apply({"params": self.frozen["teacher"]}, z, t, condition, mask)

        return self._read(guide(denoise, condition, weight, Guidance())(code_t, t), t)

    def noise(self, key: PRNGKey, num: int) -> PyTree:
        """The randomness of a batch, one each an example: the student's time `t`, of its step the time `s` of the comparison and
        the time `auxiliary_t` that the auxiliary is trained at, the weight `guidance`, and a `key`."""
        keys = [jax.random.fold_in(key, i) for i in range(5)]
        t = 1 - jax.random.randint(keys[0], (num,), 0, self.steps) / self.steps
        return {
            "t": t,
            "s": jnp.clip(t - jax.random.uniform(keys[1], (num,)) / self.steps, EARLIEST, LATEST),
            "auxiliary_t": t - low_discrepancy_times(keys[2], num) / self.steps,
            "guidance": self.guidance * jax.random.uniform(keys[3], (num,)),
            "key": prng.per_example(keys[4], num),
        }

    def match(
        self, params: PyTree, auxiliary: PyTree, batch: PyTree, noise: PyTree
    ) -> tuple[dict[str, Float[Array, "b"]], Bool[Array, "b y x k"]]:
        """The terms of each example, and the student's codes.

        Args:
          params, auxiliary: of the student and the auxiliary.

        Returns:
          `loss`, whose gradient by `params` is the student's; `gap`, the mean |∂KL/∂μ| of a bit; `flip_cross_entropy` of the
          training code at the student's times, nats a bit. And z_0 drawn.
        """
        t, s, weight, alpha = noise["t"], noise["s"], noise["guidance"], self.objective.schedule(noise["s"])
        code, condition = bits.unpack(batch["code"], self.code_shape), Condition.of(batch)
        guided, axes = self._guided(condition, weight), tuple(range(1, code.ndim))
        uniform = [prng.uniform(prng.fold(noise["key"], i), self.code_shape) for i in range(3)]
        choice = prng.uniform(prng.fold(noise["key"], 3), self.code_shape[:-1])
        code_choice = prng.uniform(prng.fold(noise["key"], 4), ())

        code_t = self.objective.corrupt(uniform[0], code, t)
        student = self._predict(params, code_t, t, guided)
        mean = jax.nn.sigmoid(log_odds_of_one(process.drawn_component(student, choice, code_choice), code_t))
        drawn = uniform[1] < mean
        code_s = self.objective.corrupt(uniform[2], drawn, s)
        ours = conditional_log_odds(self._predict(auxiliary, code_s, s, guided), code_s, alpha)
        theirs = conditional_log_odds(self._teach(code_s, s, condition, weight), code_s, alpha)
        slope = process.per_bit(alpha, code.ndim) * jnp.clip(ours - theirs, -LARGEST, LARGEST)
        slope = jax.lax.stop_gradient(slope)
        learned = -process.log_probability(student, code ^ code_t) / code[0].size
        loss = (slope * mean).mean(axes) + self.anchor * learned
        return {"loss": loss, "gap": jnp.abs(slope).mean(axes), "flip_cross_entropy": learned}, drawn

    def auxiliary_loss(self, params: PyTree, drawn: Bool[Array, "b y x k"], batch: PyTree, noise: PyTree) -> Array:
        """The auxiliary's cross-entropy of the student's codes, nats a bit, (b,)."""
        t, uniform = noise["auxiliary_t"], prng.uniform(prng.fold(noise["key"], 5), self.code_shape)
        code_t = self.objective.corrupt(uniform, drawn, t)
        prediction = self._predict(params, code_t, t, self._guided(Condition.of(batch), noise["guidance"]))
        return -process.log_probability(prediction, drawn ^ code_t) / drawn[0].size

    def gradients(self, params: PyTree, batch: PyTree, noise: PyTree) -> PyTree:
        """Means over a (micro-)batch: `values` and the `gradients` of both networks."""

        def match(student):
            terms, drawn = self.match(student, params["auxiliary"], batch, noise)
            return terms["loss"].mean(), (terms, drawn)

        def learn(auxiliary):
            return self.auxiliary_loss(auxiliary, drawn, batch, noise).mean()

        student, (terms, drawn) = jax.grad(match, has_aux=True)(params["denoiser"])
        loss, auxiliary = jax.value_and_grad(learn)(params["auxiliary"])
        values = {name: value.mean() for name, value in terms.items()} | {"auxiliary": loss}
        return {"values": values, "gradients": {"denoiser": student, "auxiliary": auxiliary}}

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step of the student and of the auxiliary; metrics are scalars."""
        noise, micro_batches = self.noise(key, batch["code"].shape[0]), self.micro_batches
        found = accumulate(lambda *part: self.gradients(state.params, *part), batch, noise, micro_batches=micro_batches)
        values, finite = found["values"], all_finite(found["values"]["auxiliary"], found["gradients"])
        updated = self.update(state, found["gradients"])
        params, opt_state = ({name: pair[i] for name, pair in updated.items()} for i in range(2))
        new_state = state.advance(params=params, opt_state=opt_state, finite=finite, ema_decay=self.optimizer.ema_decay)
        return new_state, {**values, "finite": finite, "skipped": new_state.skipped}

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict:
        """The terms of `match` on validation codes, of the EMA parameters of the student."""
        noise = self.noise(key, batch["code"].shape[0])
        terms, _ = self.match(state.ema["denoiser"], state.params["auxiliary"], batch, noise)
        return {name: metrics.mean(value, batch["mask"]) for name, value in terms.items()}


def teacher_of(net: nn.Module) -> nn.Module:
    """The network of a student's teacher: without guidance as an input."""
    return net.clone(conditioning=dataclasses.replace(net.conditioning, guidance=False))
