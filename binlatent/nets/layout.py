"""Where activations lie on the device mesh.

Left to itself XLA may gather the activations of a whole batch rather than a layer's parameters, where parameters are
divided over the axis that divides the batch too. A network says `by_example` where that must not happen; whoever
compiles it for a mesh traces it under `on_mesh`. Without a mesh nothing is said.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from binlatent.typing import Array

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def by_example(x: Array) -> Array:
    """The same array, its leading axis (examples, or their tokens) divided over data × fsdp, the others as they come."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*BATCH, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)))


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """The function, traced for a mesh with `AXES`: for what is given to `jax.jit`."""

    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced
