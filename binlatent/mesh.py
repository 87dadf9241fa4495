"""The device mesh, and the shardings of arrays on it.

One rule covers parameters, optimizer moments and EMA parameters of all stages: an array is sharded by the first regular
expression that matches its path, otherwise along its largest axis that is divisible by `fsdp`. Batches are sharded over
`data` × `fsdp`. One device is a mesh of one.

Where activations and a layer's parameters are sharded over the same axis, XLA might gather the activations instead of the
parameters. Networks call `constrain_batch` and `constrain_tokens` to prevent that; programs are traced under `on_mesh`, which
tells them the mesh. Without a mesh, they do nothing.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from binlatent.typing import Array, PyTree

AXES = ("data", "fsdp", "context", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # for arrays with a leading batch axis
TOKENS = PartitionSpec(("data", "fsdp"), "context")  # for tokens (b, l, …)

# (places of the examples of a batch) → their arrays
Rows = Callable[[np.ndarray], PyTree]

MIN_SHARDED_SIZE = 2**10  # smaller arrays are replicated: gathering them costs more than it saves

# Tensor parallelism of the denoiser: columns of the first matrix of each pair, rows of the second. The blocks' offsets are
# small, and are added to replicated activations.
TENSOR_RULES = (
    (r"blocks/(query_key_value|mlp_gate|mlp_in|cross_query|cross_key_value)/kernel$", (None, "fsdp", "tensor")),
    (r"blocks/(attention_out|mlp_out|cross_out)/kernel$", (None, "tensor", "fsdp")),
    (r"blocks/offsets$", (None, None, None)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis of the mesh; one of them may be −1 and takes the remaining devices.

    Attributes:
      data: the batch is sharded over this axis, parameters are replicated.
      fsdp: the batch, parameters, moments and EMA parameters are sharded over this axis.
      context: the tokens of an example are sharded over this axis, in the denoiser; for long sequences.
      tensor: matrices of the denoiser's blocks are sharded over this axis.
    """

    data: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1

    def build(self, devices=None) -> Mesh:
        """Builds the mesh over all devices of all processes, or over the given ones.

        Raises:
          ValueError: the product of the sizes is not the number of devices, or see `by_process`.
        """
        devices = jax.devices() if devices is None else devices
        sizes = [getattr(self, axis) for axis in AXES]
        known = math.prod(s for s in sizes if s != -1)
        described = ", ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
        if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
            raise ValueError(f"mesh {described}: sizes must be positive, except that one of them may be -1")
        if len(devices) % known or (-1 not in sizes and known != len(devices)):
            raise ValueError(f"mesh {described} does not fit {len(devices)} devices")
        sizes = [len(devices) // known if s == -1 else s for s in sizes]
        kinds = (AxisType.Auto,) * len(AXES)
        # an axis of the mesh may be a part of an axis of the slice, which `jax.make_mesh` allows on some TPUs alone
        placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(by_process(placed), AXES, axis_types=kinds)


def by_process(devices: np.ndarray) -> np.ndarray:
    """Devices (data, fsdp, context, tensor) in the order of their processes along data × fsdp.

    Process p of n reads the p-th n-th of a batch, so it must hold it; the fastest order of a TPU slice is another.

    Raises:
      ValueError: devices of several processes would hold the same examples.
    """
    groups = devices.reshape(-1, *devices.shape[2:])
    owners = [{device.process_index for device in group.flat} for group in groups]
    if any(len(owner) > 1 for owner in owners):
        groups = np.array(sorted(devices.flat, key=lambda device: device.process_index)).reshape(groups.shape)
        owners = [{device.process_index for device in group.flat} for group in groups]
    if any(len(owner) > 1 for owner in owners):
        raise ValueError(
            f"context={devices.shape[2]} × tensor={devices.shape[3]} divide examples over several processes: their product "
            "must divide the devices of a process"
        )
    order = sorted(range(len(groups)), key=lambda i: min(owners[i]))
    return groups[np.array(order)].reshape(devices.shape)


def path_name(path) -> str:
    """A pytree path as text, such as `params/blocks/qkv/kernel`."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules=TENSOR_RULES) -> PartitionSpec:
    """The partition spec of an array; axes that are not divisible are not sharded."""
    for pattern, axes in rules:
        if re.search(pattern, path) and len(axes) == len(shape):
            divides = (a and shape[i] % mesh.shape[a] == 0 for i, a in enumerate(axes))
            return PartitionSpec(*(a if ok else None for a, ok in zip(axes, divides, strict=True)))
    if math.prod(shape) < MIN_SHARDED_SIZE or mesh.shape["fsdp"] == 1:
        return PartitionSpec()
    first = 1 if "blocks/" in path and len(shape) > 1 else 0  # not the axis of scanned layers
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
    """The sharding of arrays with a leading batch axis, or with an axis of steps before it."""
    return NamedSharding(mesh, PartitionSpec(None, *BATCH) if steps else BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_divisor(mesh: Mesh, micro_batches: int = 1) -> int:
    """The global batch size must be a multiple of this: of data × fsdp × micro-batches, and of the processes."""
    return math.lcm(mesh.shape["data"] * mesh.shape["fsdp"] * micro_batches, jax.process_count())


def check_batch_size(batch_size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises ValueError if a global batch size is not divisible over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size < 1 or batch_size % (parts * micro_batches):
        raise ValueError(
            f"batch size {batch_size} is not divisible into {micro_batches} micro-batches over data × fsdp = "
            f"{mesh.shape['data']} × {mesh.shape['fsdp']} devices"
        )


def to_mesh(batch: PyTree, mesh: Mesh, *, steps: bool = False) -> PyTree:
    """Transfers this process's rows of a batch (with `steps`, of several batches) to the mesh, asynchronously."""
    sharding = batch_sharding(mesh, steps=steps)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """Gathers arrays of any sharding and replicates them on a mesh of this process's own devices.

    If they are sharded over processes, all processes must call this together.
    """

    def spans_processes(x):
        return isinstance(x, jax.Array) and not x.is_fully_addressable

    leaves, structure = jax.tree.flatten(tree)
    if spanning := [x for x in leaves if spans_processes(x)]:
        shardings = [replicated(x.sharding.mesh) for x in spanning]
        gathered = iter(jax.jit(lambda x: x, out_shardings=shardings)(spanning))
        leaves = [next(gathered).addressable_data(0) if spans_processes(x) else x for x in leaves]
    return jax.device_put(jax.tree.unflatten(structure, leaves), replicated(mesh))


def constrain_batch(x: Array) -> Array:
    """Constrains the leading axis (examples, or their tokens) to be sharded over data × fsdp, and no other axis."""
    return _constrain(x, BATCH)


def constrain_tokens(x: Array) -> Array:
    """Constrains tokens (b·l, d) to be sharded over data × fsdp, or tokens (b, l, d) also over context.

    Raises:
      ValueError: the tokens of an example cannot be divided over context.
    """
    return _constrain(x, TOKENS if x.ndim == 3 else BATCH)


def _constrain(x: Array, leading: PartitionSpec) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    if leading == TOKENS and x.shape[1] % mesh.shape["context"]:
        raise ValueError(f"{x.shape[1]} tokens cannot be divided over the mesh's context={mesh.shape['context']}")
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - len(leading))
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*leading, *free))


def context_size() -> int:
    """Devices over which the tokens of an example are sharded, in the mesh that the program is traced for."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["context"]


def platform() -> str:
    """The platform of the mesh that the program is traced for; without one, this machine's."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """Wraps a function, for `jax.jit` or with compiled programs in it, so that they are traced with the mesh as context."""

    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def run_batches(
    program: Callable[..., PyTree], num: int, rows: Sequence[Rows | None], *, mesh: Mesh, batch_size: int
) -> Iterator[tuple[int, PyTree]]:
    """Runs a program on padded batches of one shape: (how many rows count, what it gives), fetched to the host.

    A batch is started before the one before it is fetched, so that the device does not wait for the host.

    Args:
      program: of as many arguments as there are `rows`, each None or what they give.
      num: examples.
      batch_size: of a batch, raised to a multiple of the mesh's size.
    """
    size = -(-min(batch_size, num) // mesh.size) * mesh.size
    sharding, program = batch_sharding(mesh), on_mesh(program, mesh)
    before = None
    for start in range(0, num, size):
        index = np.minimum(np.arange(start, start + size), num - 1)
        batch = (None if array is None else jax.device_put(array(index), sharding) for array in rows)
        count, started = min(size, num - start), program(*batch)
        if before is not None:
            yield before[0], jax.device_get(before[1])
        before = count, started
    yield before[0], jax.device_get(before[1])
