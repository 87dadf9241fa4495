"""`binlatent bench`: the speed of a config on this machine's devices, as one table, with synthetic data and weights."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.errors import UserError
from binlatent.machines import plan
from binlatent.sampling import programs as sampling_programs
from binlatent.train.compile import StagePrograms
from binlatent.train.memory import planned_bytes
from binlatent.train.throughput import count_flops, peak_flops
from binlatent.typing import PyTree

SAMPLING_STEPS = (16, 64)
FILL = 0.9  # of a device's memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: `batch_size` examples, `seconds` and `flops` (over all devices) per call, and the `bytes` per device
    that the compiled program needs, arguments included."""

    what: str
    batch_size: int
    seconds: float
    flops: int
    bytes: int


def bench(config: ConfigDict, *, batch_size: int = 0, seconds: float = 10.0) -> list[Row]:
    """Measures training steps of both stages, and sampling with decoding at 16 and 64 steps.

    Args:
      config: the config; its section `plan` has the conditions of the data.
      batch_size: of every row; 0 for the largest power of two (times the devices) that fits the memory.
      seconds: duration of each measurement, after compilation and warm-up.

    Raises:
      UserError: the batch size is not divisible over the mesh, or is 0 on a device that does not report its memory.
    """
    mesh = config_lib.build_mesh(config)
    try:
        mesh_lib.check_batch_size(batch_size or mesh.size, mesh)
    except ValueError as error:
        raise UserError(f"--batch_size: {error}") from error
    rows = [_training(config, stage, mesh, batch_size, seconds) for stage in ("prior", "autoencoder")]
    return rows + [_sampling(config, steps, mesh, batch_size, seconds) for steps in SAMPLING_STEPS]


def _training(config: ConfigDict, stage: str, mesh: Mesh, batch_size: int, seconds: float) -> Row:
    config = config.copy_and_resolve_references()
    config[f"{stage}_training"].update(micro_batches=1, steps_per_call=1)

    def prepare(size):
        config[f"{stage}_training"].batch_size = size
        built, batch = plan.build_stage(config, stage)
        programs = StagePrograms(built, mesh, batch)
        return programs, programs.train_steps

    size, (programs, step) = _fitting(prepare, mesh, batch_size)
    _, shapes, frozen_shapes = programs.train_spec()
    state = programs.init()
    batch = _filled(shapes, mesh_lib.batch_sharding(mesh, steps=True))
    frozen = _filled(frozen_shapes, mesh_lib.replicated(mesh))

    def call():
        nonlocal state
        state, values = step(state, batch, frozen)
        return values["loss"]

    return Row(
        what=f"{stage}: training step",
        batch_size=size,
        seconds=_time(call, seconds),
        flops=programs.step_flops(),
        bytes=planned_bytes(step),
    )


def _sampling(config: ConfigDict, steps: int, mesh: Mesh, batch_size: int, seconds: float) -> Row:
    config = config.copy_and_resolve_references()
    config.sampling.steps = steps

    def prepare(size):
        shapes, settings = plan.sampling(config, mesh, batch_size=size)
        lower = mesh_lib.on_mesh(lambda: sampling_programs.generate.lower(*shapes, **settings), mesh)
        return (shapes, settings), lower().compile()

    size, ((shapes, settings), sample) = _fitting(prepare, mesh, batch_size)
    params, decoder, keys, condition, *_ = shapes
    keys = jax.device_put(jax.random.split(jax.random.key(0), size), keys.sharding)
    options, one = config_lib.build_sampling(config), mesh_lib.replicated(mesh)
    weight, temperature = (jax.device_put(jnp.float32(x), one) for x in (options.guidance, options.temperature))
    condition = _filled(condition, mesh_lib.batch_sharding(mesh))
    args = (_filled(params, one), _filled(decoder, one), keys, condition, weight, temperature, None, None)
    return Row(
        what=f"sampling and decoding: {steps} steps",
        batch_size=size,
        seconds=_time(lambda: sample(*args)[0], seconds),
        flops=count_flops(functools.partial(sampling_programs.generate, **settings), *shapes),
        bytes=planned_bytes(sample),
    )


def _filled(shapes: PyTree, sharding) -> PyTree:
    """Arrays of small numbers with the given shapes."""
    value = lambda x: jnp.full(x.shape, 1 if jnp.issubdtype(x.dtype, jnp.integer) else 0.01, x.dtype)  # noqa: E731
    return jax.tree.map(lambda x: jax.device_put(value(x), sharding), shapes)


def _fitting(prepare: Callable, mesh: Mesh, batch_size: int):
    """Returns (batch size, its result of `prepare`), for the given size or else the largest that fits the memory.

    Args:
      prepare: (batch size) → (anything, the compiled program).
    """
    if batch_size:
        return batch_size, prepare(batch_size)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is None:
        raise UserError(f"{jax.devices()[0].device_kind} does not report its memory: give a --batch_size")
    size, largest = mesh.size, None
    while True:
        try:
            prepared = prepare(size)
        except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        if planned_bytes(prepared[1]) > FILL * limit:
            break
        largest, size = (size, prepared), 2 * size
    if largest is None:
        raise UserError(f"not even {mesh.size} examples fit the memory: shard the state (--config.mesh.fsdp=-1)")
    return largest


def _time(call: Callable, seconds: float) -> float:
    """Mean seconds per call, measured for `seconds` after two calls of warm-up."""
    for _ in range(2):
        jax.block_until_ready(call())
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or count < 2:
        # two calls are in flight at a time, as in training
        results = [call(), call()]
        jax.block_until_ready(results)
        count += 2
    return elapsed / count


def table(rows: list[Row]) -> str:
    """The rows as a markdown table, with a line that names the devices."""
    devices = jax.devices()
    kind, peak = devices[0].device_kind, peak_flops(devices[0].device_kind)
    known = f"peak {peak / 1e12:g} TFLOP/s in bfloat16" if peak else "peak unknown, so no MFU"
    lines = [
        f"{len(devices)} × {kind} ({known}); jax {jax.__version__}",
        "",
        "| | batch | ms per call | images/s | TFLOP/s per device | MFU | memory per device |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        rate = row.flops / row.seconds / len(devices)
        mfu = f"{100 * rate / peak:.1f} %" if peak else "–"
        decimals = max(0, 3 - math.ceil(math.log10(1e3 * row.seconds)))
        lines.append(
            f"| {row.what} | {row.batch_size} | {1e3 * row.seconds:.{decimals}f} | {row.batch_size / row.seconds:.4g} | "
            f"{rate / 1e12:.4g} | {mfu} | {row.bytes / 2**30:.2f} GiB |"
        )
    return "\n".join(lines) + "\n"
