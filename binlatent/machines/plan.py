"""The cost of a config, before training: parameters, bits, operations, memory per device.

Everything is computed from shapes, without parameters or data. Compiling the programs as well shows that they are
consistent, and their temporary memory.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.data.options import ExpectedData
from binlatent.errors import UserError
from binlatent.files import user_path
from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.resnet import ResNet50
from binlatent.nets.vgg import LPIPS
from binlatent.train.compile import StagePrograms
from binlatent.train.perceptual import RESNET_SIZE
from binlatent.train.stage import Stage
from binlatent.typing import PyTree

HEADER = """# What the shipped configs cost

Written by `binlatent plan --compile --out docs/configs.md`; a test compares it with the configs. Nothing was run:
everything is computed from shapes, for {devices} devices in the config's mesh.

* *parameters*: of the trained networks (stage 1: with the discriminator).
* *FLOP*: matrix products and convolutions of a training step, without recomputation; stage 1 with its discriminator and
  perceptual loss.
* *state*: parameters, two moments and EMA parameters in float32, on one device.
* *temporary*: further memory of the compiled step on one device, as XLA plans it for CPUs, where bfloat16 is partly widened
  to float32 and attention is not fused: more than a GPU or TPU needs.
* The numbers of classes and the shapes of text embeddings are those of the config's section `plan`.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of one stage of a config on a mesh.

    Attributes:
      parameters: number of trained parameters.
      bits: of an image's code.
      batch_size: examples per step.
      flops: operations per training step, over all devices.
      state_bytes: parameters, optimizer state and EMA parameters on one device.
      devices: number of devices in the mesh.
      temporary_bytes: temporary memory of the compiled step on one device, as planned by the current backend; None if it
        was not compiled.
    """

    parameters: int
    bits: int
    batch_size: int
    flops: int
    state_bytes: int
    devices: int
    temporary_bytes: int | None = None


def perceptual_shapes() -> dict[str, PyTree]:
    """Shapes of the perceptual networks' weights."""
    images = jnp.zeros((1, RESNET_SIZE, RESNET_SIZE, 3))
    key = jax.random.key(0)
    return {
        "lpips": jax.eval_shape(lambda: LPIPS().init(key, images, images)["params"]),
        "resnet50": jax.eval_shape(lambda: ResNet50().init(key, images)["params"]),
    }


def build_stage(config: ConfigDict, stage: str) -> tuple[Stage, PyTree]:
    """Builds a stage from a config alone, and the shapes (b, …) of its training batches; the config's section `plan` has
    the conditions of the data."""
    batch_size = config_lib.build_training(config, stage).batch_size
    if stage == "autoencoder":
        built = config_lib.build_autoencoder_stage(config, perceptual_shapes())
        side, channels = config.data.resolution, config.data.channels
        return built, {"image": jax.ShapeDtypeStruct((batch_size, side, side, channels), jnp.uint8)}
    code_shape, data = config_lib.build_autoencoder(config).code_shape, config_lib.build_plan(config)
    built = config_lib.build_prior_stage(config, code_shape, conditioning(data))
    batch = {"code": jax.ShapeDtypeStruct((batch_size, -(-math.prod(code_shape) // 8)), jnp.uint8)}
    return built, batch | condition_shapes(data, batch_size)


def conditioning(data: ExpectedData) -> Conditioning:
    """What a prior of such data is conditioned on."""
    text = {"vocabulary": data.words} if data.words else None
    return Conditioning.of(data.num_classes, tuple(data.condition_shape), text)


def condition_shapes(data: ExpectedData, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the conditions in a batch, by the names of `Condition`."""
    shapes = {}
    if data.num_classes:
        shapes["label"] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    if data.words:
        words = batch_size, data.caption_words
        shapes |= {"tokens": jax.ShapeDtypeStruct(words, jnp.uint16), "token_mask": jax.ShapeDtypeStruct(words, bool)}
    elif data.condition_shape:
        name = "vector" if len(data.condition_shape) == 1 else "tokens"
        shapes[name] = jax.ShapeDtypeStruct((batch_size, *data.condition_shape), jnp.float32)
    return shapes


def plan(config: ConfigDict, stage: str, mesh: Mesh, *, compiled: bool = False) -> Plan:
    """Computes the plan of one stage.

    Args:
      compiled: also compile the training step for the mesh.
    """
    built, batch = build_stage(config, stage)
    programs = StagePrograms(built, mesh, batch)
    state = programs.state_spec
    bytes_held = jax.tree.map(lambda x: math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize, state)
    result = Plan(
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        bits=math.prod(config_lib.build_autoencoder(config).code_shape),
        batch_size=jax.tree.leaves(programs.batch_spec)[0].shape[0],
        flops=programs.step_flops(),
        state_bytes=sum(jax.tree.leaves(bytes_held)),
        devices=mesh.size,
    )
    if not compiled:
        return result
    try:
        mesh_lib.check_batch_size(result.batch_size, mesh, config_lib.build_training(config, stage).micro_batches)
    except ValueError as error:
        raise UserError(f"{stage}: {error}; choose another number of --devices") from error
    memory = programs.train_steps.memory_analysis()
    return dataclasses.replace(result, temporary_bytes=memory.temp_size_in_bytes)


def sampling(config: ConfigDict, mesh: Mesh, *, batch_size: int) -> tuple[tuple, dict[str, Any]]:
    """The arguments of `sampling.programs.generate`, the program that `binlatent sample` runs, for a config.

    Returns:
      The arguments as shapes with shardings, and the static settings.
    """
    net, data = config_lib.build_autoencoder(config), config_lib.build_plan(config)
    denoiser = config_lib.build_denoiser(config, net.code_shape, conditioning(data))
    options, objective = config_lib.build_sampling(config), config_lib.build_objective(config)
    replicated, by_batch = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)

    def on(sharding, *shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    shapes = condition_shapes(data, batch_size)
    condition = Condition.of({name: on(by_batch, *x.shape, dtype=x.dtype) for name, x in shapes.items()})
    images = jnp.zeros((1, net.resolution, net.resolution, net.image_channels))
    code, t = jnp.zeros((1, *net.code_shape), bool), jnp.zeros(1)
    one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), condition)
    key = jax.random.key(0)
    params = jax.eval_shape(
        lambda: (denoiser.init(key, code, t, one)["params"], net.init(key, images)["params"])  # not executed
    )
    params = jax.tree.map(lambda x: on(replicated, *x.shape, dtype=x.dtype), params)
    keys = on(by_batch, batch_size, dtype=key.dtype)
    settings = {
        "net": denoiser,
        "objective": objective,
        "autoencoder": net,
        "sampler": options.sampler(objective.schedule),
        "guidance": options.when() if options.guidance and condition is not None else None,
        "clamp": "noised",
        "start": 1.0,
        "trajectory": False,
    }
    return (*params, keys, condition, on(replicated), on(replicated), None, None), settings


def table(names: list[str], mesh_devices: int, *, compiled: bool) -> str:
    """A markdown table of the plans of configs, both stages, on so many devices."""
    lines = [
        "| config | stage | bits per image | parameters | batch | TFLOP per step | GFLOP per example | state per device | "
        "temporary per device |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        config = config_lib.load(name)
        mesh = config_lib.build_mesh(config)
        if mesh.size != mesh_devices:
            raise ValueError(f"there are {mesh.size} devices, but the table is for {mesh_devices}")
        for stage in ("autoencoder", "prior"):
            row = plan(config, stage, mesh, compiled=compiled)
            temporary = "" if row.temporary_bytes is None else f"{row.temporary_bytes / 2**30:.2f} GiB"
            lines.append(
                f"| `{name}` | {stage} | {row.bits:,} | {row.parameters / 1e6:.1f} M | {row.batch_size} | "
                f"{row.flops / 1e12:.4g} | {row.flops / row.batch_size / 1e9:.4g} | {row.state_bytes / 2**30:.2f} GiB | "
                f"{temporary} |"
            )
    return "\n".join(lines) + "\n"


def write(path: epath.PathLike, text: str, devices: int) -> None:
    """Writes a table with an explanation of its columns."""
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER.format(devices=devices)}\n{text}")
