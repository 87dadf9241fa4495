"""The device mesh, and where every array lies on it.

One rule covers parameters, optimizer moments and moving averages of both stages: an array goes by the first regular
expression that its path matches, otherwise by its largest axis that divides over `fsdp`. Batches go over `data` × `fsdp`.
One device is a mesh of one.

Left to itself XLA may gather the activations of a whole batch rather than a layer's parameters, where both are sharded
over the same axis. A network calls `constrain_batch` where that must not happen; whoever compiles it for a mesh traces it
under `on_mesh`. Without a mesh both do nothing.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from binlatent.typing import Array, PyTree

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # of an array whose leading axis holds examples

MIN_SHARDED_SIZE = 2**10  # smaller arrays are copied to every device: gathering them costs more than it saves

# Tensor parallelism of the denoiser: columns of the first matrix of each pair, rows of the second. The offsets of its
# blocks are small and added to what lies on every device.
TENSOR_RULES = (
    (r"blocks/(query_key_value|mlp_in|cross_query|cross_key_value)/kernel$", (None, "fsdp", "tensor")),
    (r"blocks/(attention_out|mlp_out|cross_out)/kernel$", (None, "tensor", "fsdp")),
    (r"blocks/offsets$", (None, None, None)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis of the mesh; −1, at most once, takes the rest.

    Attributes:
      data: copies of the parameters, each with its part of the batch.
      fsdp: parameters, moments and averages are divided over this axis, and the batch too.
      tensor: matrices of the denoiser's blocks are divided over this axis, the batch is not.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def build(self, devices=None) -> Mesh:
        """The mesh over all devices (of every process), or over the given ones.

        Raises:
          ValueError: the sizes do not multiply to the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        sizes = [getattr(self, axis) for axis in AXES]
        known = math.prod(s for s in sizes if s != -1)
        described = ", ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
        if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
            raise ValueError(f"mesh {described}: sizes must be positive, and at most one of them -1")
        if len(devices) % known or (-1 not in sizes and known != len(devices)):
            raise ValueError(f"mesh {described} does not fit {len(devices)} devices")
        sizes = [len(devices) // known if s == -1 else s for s in sizes]
        return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def path_name(path) -> str:
    """A pytree path as `params/blocks/qkv/kernel`."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules=TENSOR_RULES) -> PartitionSpec:
    """Where an array lies; axes that do not divide are not partitioned."""
    for pattern, axes in rules:
        if re.search(pattern, path) and len(axes) == len(shape):
            divides = (a and shape[i] % mesh.shape[a] == 0 for i, a in enumerate(axes))
            return PartitionSpec(*(a if ok else None for a, ok in zip(axes, divides, strict=True)))
    if math.prod(shape) < MIN_SHARDED_SIZE or mesh.shape["fsdp"] == 1:
        return PartitionSpec()
    first = 1 if "blocks/" in path and len(shape) > 1 else 0  # the axis of scanned layers stays whole
    for axis in sorted(range(first, len(shape)), key=lambda i: -shape[i]):
        if shape[axis] % mesh.shape["fsdp"] == 0:
            return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
    return PartitionSpec()


def state_shardings(abstract: PyTree, mesh: Mesh, rules=TENSOR_RULES) -> PyTree:
    """Shardings of a tree of (abstract) arrays, by rule."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(mesh, partition_spec(path_name(path), x.shape, mesh, rules)), abstract
    )


def batch_sharding(mesh: Mesh, *, steps: bool = False) -> NamedSharding:
    """Of an array with a leading axis of examples, or with one of steps before it."""
    return NamedSharding(mesh, PartitionSpec(None, *BATCH) if steps else BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_divisor(mesh: Mesh, micro_batches: int = 1) -> int:
    """What a global batch size has to be a multiple of: examples divide over data × fsdp, micro-batches and processes."""
    return math.lcm(mesh.shape["data"] * mesh.shape["fsdp"] * micro_batches, jax.process_count())


def check_batch_size(batch_size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises ValueError where a global batch does not divide over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size < 1 or batch_size % (parts * micro_batches):
        raise ValueError(
            f"batch size {batch_size} does not divide into {micro_batches} micro-batches over data × fsdp = "
            f"{mesh.shape['data']} × {mesh.shape['fsdp']} devices"
        )


def to_mesh(batch: PyTree, mesh: Mesh, *, steps: bool = False) -> PyTree:
    """Puts this process's rows of a batch (of `steps` batches) on the mesh; the transfer runs behind the program."""
    sharding = batch_sharding(mesh, steps=steps)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays from wherever they lie, replicated on each device of a mesh of this process's own devices.

    Where they are divided among processes, every process must call this at the same point.
    """

    def divided(x):
        return isinstance(x, jax.Array) and not x.is_fully_addressable

    leaves, structure = jax.tree.flatten(tree)
    if any(map(divided, leaves)):
        everywhere = [replicated(x.sharding.mesh) for x in leaves]
        leaves = [x.addressable_data(0) for x in jax.jit(lambda x: x, out_shardings=everywhere)(leaves)]
    return jax.device_put(jax.tree.unflatten(structure, leaves), replicated(mesh))


def constrain_batch(x: Array) -> Array:
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
