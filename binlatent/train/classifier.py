"""An optional stage: a classifier whose features score samples where Inception's weights are missing."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from binlatent.nets.classifier import FeatureClassifier
from binlatent.train import metrics
from binlatent.train.optimizer import all_finite, value_and_grad
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.typing import Array, PRNGKey, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierStage(Stage):
    """Trains a classifier on images and their labels.

    A batch holds `image` uint8 (b, h, w, c) and `label` int (b,); validation batches a `mask` (b,) too.

    Attributes:
      net: the classifier.
      optimizer, num_steps: see `Optimizer` and `Training`.
    """

    net: FeatureClassifier

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state; only the shapes of `batch` are used."""
        params = {"classifier": self.net.init(key, jnp.zeros((1, *batch["image"].shape[1:])))["params"]}
        return TrainState.create(params, self.optimizer.build(self.num_steps).init(params))

    def _values(self, params: PyTree, batch: PyTree) -> dict[str, Array]:
        logits = self.net.apply({"params": params["classifier"]}, batch["image"].astype(jnp.float32) / 255).logits
        return {
            "cross_entropy": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
            "accuracy": (logits.argmax(-1) == batch["label"]).astype(jnp.float32),
        }

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step, without randomness; metrics are scalars."""
        del key

        def loss(params, batch, _):
            values = jax.tree.map(jnp.mean, self._values(params, batch))
            return values.pop("cross_entropy"), values

        total, values, grads = value_and_grad(loss, state.params, batch, {})
        finite = all_finite(total, grads)
        params, opt_state = self.optimizer.update(grads, state.opt_state, state.params, self.num_steps)
        new_state = state.advance(params=params, opt_state=opt_state, finite=finite, ema_decay=self.optimizer.ema_decay)
        return new_state, {"loss": total, **values, "finite": finite, "skipped": new_state.skipped}

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict:
        """Cross-entropy (nats) and accuracy of the EMA parameters."""
        del key
        values = self._values(state.ema, batch)
        return {name: metrics.mean(value, batch["mask"]) for name, value in values.items()}
