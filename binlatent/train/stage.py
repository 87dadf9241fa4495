"""What the loop trains, without knowing what it is."""

import abc
import dataclasses
from typing import Any

import flax.linen as nn

from binlatent.train.optimizer import Optimizer
from binlatent.train.state import TrainState
from binlatent.typing import Array, PRNGKey, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stage(abc.ABC):
    """Networks, their losses and optimizers: everything that the loop and the planner ask of a stage.

    Attributes:
      net: the network that is trained to be used later.
      optimizer: its optimizer.
      num_steps: of the run, for the learning rate.
      frozen: weights that a step reads and does not train, {} where there are none. They are an argument of every
        compiled program: as constants they would be copied into the text of each.
    """

    net: nn.Module
    optimizer: Optimizer
    num_steps: int
    frozen: PyTree = dataclasses.field(default_factory=dict)

    @abc.abstractmethod
    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state; of `batch` (b, …) only the shapes are used."""

    @abc.abstractmethod
    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One step; its metrics are scalars, among them `loss` and `finite` (whether the step was taken)."""

    @abc.abstractmethod
    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict[str, Any]:
        """Mergeable metrics of a batch, whose `mask` (b,) is False for padding."""

    def warnings(self, values: dict[str, Any]) -> list[str]:
        """What a person should be told about the values of an evaluation."""
        return []
