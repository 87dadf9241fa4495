"""What a config needs on a slice of TPUs, from the TPU's own compiler, without a TPU.

`libtpu` holds the compiler and runs it on any x86-64 Linux machine. Programs are compiled from shapes alone; what is
learned of each is cached, by a digest of the program, the slice and the versions, since a compilation takes minutes.
"""

import dataclasses
import functools
import importlib.metadata
import json
import re
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.console import say
from binlatent.errors import UserError
from binlatent.files import digest, load_cached, store_cached, user_path
from binlatent.machines import plan
from binlatent.machines.collectives import Collective, collectives
from binlatent.machines.slices import Slice, open_slice
from binlatent.mesh import on_mesh
from binlatent.sampling import programs as sampling_programs
from binlatent.train.compile import StagePrograms

SAMPLES, ENCODED = 64, 256  # images per call: of a `Pipeline`, and of `binlatent encode`
CACHED = "tpu", 1  # kind and version of cache entries
PROGRAMS = ("prior", "autoencoder", "sampling", "encoding")

HEADER = """# What the configs need on TPUs

Written by `binlatent plan --topology config --cached --out docs/tpu.md`; a slow test compares the small configs with it.
Nothing was run: the training steps, sampling and encoding were compiled by the TPU's own compiler (libtpu {libtpu}, jax
{jax}) for the slice that the config names in `plan.topology`, from shapes alone, on a machine without a TPU. Programs that
differ only in numbers, such as rates and lengths of schedules, were compiled once; what is not in the table was not compiled.

* *batch*: examples over all chips. Sampling and encoding run on one host's devices at a time; here on the whole slice, with
  all parameters on each chip.
* *state*: arguments and results on one chip; of training parameters, two moments and EMA parameters in float32, the batch
  and the perceptual networks. *Temporary*: what the program needs between them, and the program itself. *Total*: both, and
  in brackets what the chip's compiler allows; v5e has 16 GB of HBM, v5p 95 GB, v6e 32 GB
  ([v5e](https://cloud.google.com/tpu/docs/v5e), [v5p](https://cloud.google.com/tpu/docs/v5p),
  [v6e](https://cloud.google.com/tpu/docs/v6e)).
* *collectives*: how often each kind runs on a chip in one call, loops included, and the bytes of the whole arrays that are
  summed, gathered or moved. *Largest*: the largest single array among them.
* *compiled in*: on one core of a CPU.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a compiled program needs of a chip, in bytes.

    Attributes:
      state: arguments and results.
      temporary: what is needed between them, and the program itself. None if the compiler refused the program.
      total: of both, or what the compiler says that it would take.
      collectives: of one call; empty if the compiler refused the program.
      seconds: that compilation took.
    """

    state: int
    temporary: int | None
    total: int
    collectives: tuple[Collective, ...]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A program of a config on a slice; `largest` is the estimated largest batch that fits, where it was asked for."""

    config: str
    program: str
    slice: Slice
    batch_size: int
    footprint: Footprint
    largest: int | None = None


def lower(config: ConfigDict, program: str, where: Slice, batch_size: int = 0) -> tuple[int, Callable]:
    """A program of `PROGRAMS` for a slice: (its batch size, a function that lowers it).

    Args:
      batch_size: examples per call; 0 for the config's, or of sampling and encoding what the commands use.

    Raises:
      UserError: the config's mesh does not fit the slice.
    """
    try:
        mesh = config_lib.build_mesh(config, where.devices)
    except UserError as error:
        raise UserError(f"topology {where.name}: {error}") from error
    if program in ("prior", "autoencoder"):
        config = config.copy_and_resolve_references()
        training = config[f"{program}_training"]
        training.batch_size = batch_size or training.batch_size
        try:
            mesh_lib.check_batch_size(training.batch_size, mesh, training.micro_batches)
        except ValueError as error:
            raise UserError(f"topology {where.name}: {program}: {error}") from error
        built, batch = plan.build_stage(config, program)
        return training.batch_size, StagePrograms(built, mesh, batch).lower_train_steps
    mesh = mesh_lib.MeshShape().build(where.devices)  # that of a pipeline
    size = batch_size or -(-(SAMPLES if program == "sampling" else ENCODED) // mesh.size) * mesh.size
    if program == "sampling":
        shapes, settings = plan.sampling(config, mesh, batch_size=size)
        return size, on_mesh(lambda: sampling_programs.generate.lower(*shapes, **settings), mesh)
    return size, functools.partial(_encoding, config, mesh, size)


def _encoding(config: ConfigDict, mesh: Mesh, batch_size: int) -> jax.stages.Lowered:
    net = config_lib.build_autoencoder(config)
    image = (net.resolution, net.resolution, net.image_channels)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, *image)))["params"])
    replicated = mesh_lib.replicated(mesh)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), params)
    images = jax.ShapeDtypeStruct((batch_size, *image), jnp.uint8, sharding=mesh_lib.batch_sharding(mesh))
    return on_mesh(lambda: sampling_programs.encode.lower(params, images, None, net=net), mesh)()


def footprint(lowered: jax.stages.Lowered, where: Slice, *, compiled: bool = True) -> Footprint | None:
    """What a program needs of a chip: from the cache, or else by compiling it, unless that is not wanted."""
    kind, version = CACHED
    key = digest(_generic(lowered.as_text()), where.name, *_versions().values())
    if (found := load_cached(kind, key, version)) is not None:
        values = json.loads(str(found["footprint"]))
        return Footprint(**values | {"collectives": tuple(Collective(**x) for x in values["collectives"])})
    if not compiled:
        return None
    started = time.perf_counter()
    made = _compile(lowered)
    made = dataclasses.replace(made, seconds=time.perf_counter() - started)
    store_cached(kind, key, version, {"footprint": np.array(json.dumps(dataclasses.asdict(made)))})
    return made


def _compile(lowered: jax.stages.Lowered) -> Footprint:
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _refused(str(error))
        if needed is None:
            raise
        return Footprint(state=0, temporary=None, total=needed, collectives=(), seconds=0.0)
    memory = program.memory_analysis()
    state = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporary = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Footprint(
        state=state,
        temporary=temporary,
        total=state + temporary,
        collectives=collectives(program.as_text()),
        seconds=0.0,
    )


def _refused(message: str) -> int | None:
    """Bytes that a program would take, by the error of a compiler that found them too many; None for another error."""
    used = re.search(r"Used ([\d.]+)([KMGT]) of|required for .*? \(([\d.]+)([KMGT])\) exceeds", message)
    if "RESOURCE_EXHAUSTED" not in message or used is None:
        return None
    number, unit = used[1] or used[3], used[2] or used[4]
    return int(float(number) * 2 ** (10 * (1 + "KMGT".index(unit))))


def _generic(text: str) -> str:
    """The text of a program without its numbers, such as rates and lengths of schedules: they change no shape.

    0 and ±1 stay, because the compiler removes a product or a sum with them.
    """
    return re.sub(r"dense<(-?[\d.]+E?e?[+-]?\d*)> : tensor<f32>", _constant, text)


def _constant(match: re.Match) -> str:
    return match[0] if float(match[1]) in (0.0, 1.0, -1.0) else "dense<number> : tensor<f32>"


def _versions() -> dict[str, str]:
    return {"libtpu": importlib.metadata.version("libtpu"), "jax": jax.__version__}


def rows(
    names: list[str],
    topology: str,
    *,
    programs: tuple[str, ...] = PROGRAMS,
    largest: bool = False,
    cached: bool = False,
) -> Iterator[Row]:
    """The programs of configs on a slice, each as soon as it is compiled.

    Args:
      names: of configs; empty for all shipped ones, or with the topology `config` for those that name a slice.
      topology: the slice, or `config` for that of the config's own `plan.topology`.
      programs: some of `PROGRAMS`.
      largest: also estimate the largest batch, from a second compilation with half the batch.
      cached: only those that were compiled before.

    Raises:
      UserError: a config names no slice; see also `open_slice` and `lower`.
    """
    for name in names or config_lib.shipped():
        config = config_lib.load(name)
        wanted = config.plan.topology if topology == "config" else topology
        if not wanted and not names:
            continue
        if not wanted:
            raise UserError(f"config {name} names no slice: give --topology v5e:2x4, or set plan.topology in it")
        where = open_slice(wanted)
        for program in programs:
            size, make = lower(config, program, where)
            found = footprint(make(), where, compiled=not cached)
            if found is not None:
                most = _largest(config, program, where, size, found, cached) if largest else None
                yield Row(config=name, program=program, slice=where, batch_size=size, footprint=found, largest=most)


def _largest(config: ConfigDict, program: str, where: Slice, size: int, whole: Footprint, cached: bool) -> int | None:
    """The largest batch that fits, by a line through the memory of a batch and of half of it."""
    parts = config_lib.build_mesh(config, where.devices).size
    if program in ("prior", "autoencoder"):
        parts *= config[f"{program}_training"].micro_batches
    if (part := size // 2 // parts * parts) == 0:
        return None
    half = footprint(lower(config, program, where, part)[1](), where, compiled=not cached)
    if half is None:
        return None
    per_example = (whole.total - half.total) / (size - part)
    if per_example <= 0:
        return None
    most = part + (where.chip.memory - half.total) / per_example
    return max(int(most) // parts * parts, 0)


def table(made: list[Row]) -> str:
    """The rows as markdown."""
    estimated = any(row.largest is not None for row in made)
    heading = "config | slice | program | batch | state | temporary | total (of) | collectives | largest | compiled in"
    rule = "---|---|---|---:|---:|---:|---:|---|---|---:"
    lines = [heading + " | largest batch, about" * estimated, rule + "|---:" * estimated]
    for row in made:
        found = row.footprint
        moved = ", ".join(f"{x.count} {x.kind} {_size(x.bytes)}" for x in found.collectives) or "none"
        biggest = max(found.collectives, key=lambda x: x.largest, default=None)
        cells = [
            f"`{row.config}`",
            row.slice.name,
            row.program,
            row.batch_size,
            _size(found.state),
            "refused" if found.temporary is None else _size(found.temporary),
            f"{_size(found.total)} ({row.slice.chip.memory / 2**30:.2f})",
            moved,
            "" if biggest is None else f"{_size(biggest.largest)} {biggest.kind}",
            f"{found.seconds:.0f} s",
        ]
        cells += [row.largest or ""] * estimated
        lines.append(" | ".join(map(str, cells)))
    return f"| {lines[0]} |\n|{lines[1]}|\n" + "".join(f"| {line} |\n" for line in lines[2:])


def _size(number: int) -> str:
    """Bytes as a reader wants them."""
    unit = next((u for u in ("GiB", "MiB") if number >= 2 ** {"GiB": 30, "MiB": 20}[u]), "KiB")
    return f"{number / 2 ** {'GiB': 30, 'MiB': 20, 'KiB': 10}[unit]:.3g} {unit}"


def write(path: epath.PathLike, text: str) -> None:
    """Writes a table with an explanation of its columns."""
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER.format(**_versions())}\n{text}")


def report(made: Iterator[Row]) -> list[Row]:
    """The rows, each announced as it comes."""
    found = []
    for row in made:
        found.append(row)
        say(f"{row.config}, {row.slice.name}, {row.program}: {_size(row.footprint.total)} a chip")
    return found
