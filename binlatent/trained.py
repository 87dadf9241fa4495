"""A trained network, as it comes out of a checkpoint."""

import dataclasses
from typing import Any

import flax.linen as nn

from binlatent.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained network.

    Attributes:
      net: the module.
      params: its averaged parameters, on every device of the mesh.
      step: the training step they are of.
      about: what the checkpoint says of itself.
    """

    net: nn.Module
    params: PyTree
    step: int
    about: dict[str, Any]
