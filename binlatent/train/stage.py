"""The interface between a stage and the training loop."""

import abc
import dataclasses
from typing import Any

import flax.linen as nn

from binlatent.train.optimizer import Optimizer
from binlatent.train.state import TrainState
from binlatent.typing import Array, PRNGKey, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage(abc.ABC):
    """A network with its losses and optimizer: everything that the training loop and `plan` need.

    Attributes:
      net: the network that the stage produces.
      optimizer: its optimizer.
      num_steps: of the run, for the learning-rate schedule.
      frozen: weights that a step uses without training them; {} for none. They are an argument of every compiled
        program, because constants would be copied into each.
    """

    net: nn.Module
    optimizer: Optimizer
    num_steps: int
    frozen: PyTree = dataclasses.field(default_factory=dict)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """All optimizers of the stage, by the network that they train."""
        return {"all": self.optimizer}

    @property
    def complete_from(self) -> int:
        """The first step that needs all of the stage; 0: every step does."""
        return 0

    def starts_at(self, name: str) -> int:
        """The step at which one of `optimizers` takes its first step; its schedule counts from there."""
        return 0

    def init_optimizers(self, params: PyTree) -> PyTree:
        """Fresh states of `optimizers`, for networks by name."""
        return {name: self.optimizers[name].build(self._steps_of(name)).init(tree) for name, tree in params.items()}

    def update(self, state: TrainState, gradients: PyTree) -> dict[str, tuple[PyTree, PyTree]]:
        """New parameters and states of `optimizers`, for networks by name."""
        return {
            name: self.optimizers[name].update(
                gradient, state.opt_state[name], state.params[name], self._steps_of(name)
            )
            for name, gradient in gradients.items()
        }

    def _steps_of(self, name: str) -> int:
        return max(self.num_steps - self.starts_at(name), 1)

    def early(self) -> "Stage":
        """The stage of the steps before `complete_from`: the same states, without what has no effect on them yet."""
        return self

    @abc.abstractmethod
    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state; only the shapes of `batch` (b, …) are used."""

    @abc.abstractmethod
    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One step; metrics are scalars and include `loss` and `finite` (whether the step was taken)."""

    @abc.abstractmethod
    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict[str, Any]:
        """Mergeable metrics of a batch with `mask` (b,), False for padding."""

    def warnings(self, values: dict[str, Any]) -> list[str]:
        """Warnings about the values of an evaluation."""
        return []
