"""What a config costs, before anything is trained: parameters, bits, operations, memory of a device.

Everything follows from shapes: no parameter is made and no data is read. Compiling the programs as well says whether
they fit together and what they need besides the state.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.mesh import on_mesh
from binlatent.nets.resnet import ResNet50
from binlatent.nets.vgg import LPIPS
from binlatent.sampling.guidance import bind, guide
from binlatent.train.perceptual import RESNET_SIZE
from binlatent.train.throughput import step_flops
from binlatent.typing import PyTree

# What data of the shipped configs bring along; a plan of another config takes none.
CLASSES = {"digits": 10, "cifar10": 10, "imagenet_256": 1000}
CONDITIONS = {"text_256": (77, 1024)}  # tokens and features of a text encoder

ABOUT = """# What the shipped configs cost

Written by `binlatent plan --compile --out docs/configs.md`; a test compares it with the configs. Nothing here was run on
hardware: everything follows from shapes, for {devices} devices in the mesh that the config asks for.

* *parameters*: of the networks that are trained (stage 1: with its discriminator).
* *FLOP*: matrix products and convolutions of a training step, recomputation left out; stage 1 with its discriminator and
  its perceptual loss.
* *state*: parameters, two moments and the moving average in float32, on one device.
* *temporary*: what the compiled step needs besides, on one device, as XLA plans it for CPUs, where bfloat16 is partly widened
  to float32 and attention is not fused: more than a GPU or TPU needs.
* classes and text embeddings come with the data; taken here: 1,000 classes for `imagenet_256`, 77 tokens of 1,024 features
  for `text_256`.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One stage of a config on a mesh.

    Attributes:
      parameters: of the networks that are trained.
      bits: of an image's code.
      batch_size: examples of a step.
      flops: operations of a training step, over all devices.
      state_bytes: parameters, optimizer state and averages on one device.
      devices: of the mesh.
      temporary_bytes: what the compiled step needs besides, on one device, as planned by the backend at hand; None where
        it was not compiled.
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


def build_stage(config: ConfigDict, stage: str, *, num_classes: int = 0, condition_shape: tuple[int, ...] = ()):
    """A stage from a config alone, and the shapes of a batch of its training.

    Args:
      num_classes, condition_shape: of the data.
    """
    batch_size = config_lib.build_training(config, stage).batch_size
    if stage == "autoencoder":
        made = config_lib.build_autoencoder_stage(config, perceptual_shapes())
        side, channels = config.data.resolution, config.data.channels
        return made, {"image": jax.ShapeDtypeStruct((batch_size, side, side, channels), jnp.uint8)}
    code_shape = config_lib.build_autoencoder(config).code_shape
    made = config_lib.build_prior_stage(config, code_shape, num_classes, condition_shape)
    batch = {"code": jax.ShapeDtypeStruct((batch_size, -(-math.prod(code_shape) // 8)), jnp.uint8)}
    if num_classes:
        batch["label"] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    if condition_shape:
        batch["condition"] = jax.ShapeDtypeStruct((batch_size, *condition_shape), jnp.float32)
    return made, batch


def plan(config: ConfigDict, stage: str, mesh: Mesh, *, compiled: bool = False, **data) -> Plan:
    """The plan of one stage.

    Args:
      compiled: compile the training step for the mesh, too.
      **data: see `build_stage`.
    """
    made, batch = build_stage(config, stage, **data)
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: made.init(key, batch))
    shardings = mesh_lib.state_shardings(state, mesh)
    held = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, state, shardings)
    result = Plan(
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        bits=math.prod(config_lib.build_autoencoder(config).code_shape),
        batch_size=jax.tree.leaves(batch)[0].shape[0],
        flops=step_flops(made, state, batch),
        state_bytes=sum(jax.tree.leaves(held)),
        devices=mesh.size,
    )
    if not compiled:
        return result
    memory = compile_step(made, state, batch, mesh).memory_analysis()
    return dataclasses.replace(result, temporary_bytes=memory.temp_size_in_bytes)


def compile_step(stage, state: PyTree, batch: PyTree, mesh: Mesh):
    """A stage's training step, compiled for a mesh from shapes alone."""
    shardings, same = mesh_lib.state_shardings(state, mesh), mesh_lib.replicated(mesh)
    frozen = getattr(stage, "frozen", {})

    def step(state, batch, frozen):
        made = dataclasses.replace(stage, frozen=frozen) if frozen else stage
        return made.train_step(state, batch, jax.random.fold_in(jax.random.key(0), state.step))

    jitted = jax.jit(
        on_mesh(step, mesh),
        in_shardings=(shardings, mesh_lib.batch_sharding(mesh), same),
        out_shardings=(shardings, same),
        donate_argnums=0,
    )
    return jitted.lower(state, batch, frozen).compile()


def sampling(config: ConfigDict, mesh: Mesh, *, batch_size: int, num_classes=0, condition_shape=()):
    """Sampling with decoding as a config has it: the function, the shapes of its arguments, and where they lie.

    The arguments are the parameters of (autoencoder, denoiser), a key an example, and the condition or None.
    """
    net = config_lib.build_autoencoder(config)
    denoiser = config_lib.build_denoiser(config, net.code_shape, num_classes, condition_shape)
    options = config_lib.build_sampling(config)
    sampler = options.sampler(config_lib.build_objective(config).schedule)
    images = jnp.zeros((1, net.resolution, net.resolution, net.image_channels))
    code, t = jnp.zeros((1, *net.code_shape), bool), jnp.zeros(1)
    one = jnp.zeros((1, *condition_shape)) if condition_shape else jnp.zeros(1, jnp.int32) if num_classes else None
    params = jax.eval_shape(
        lambda k: (net.init(k, images)["params"], denoiser.init(k, code, t, one)["params"]), jax.random.key(0)
    )

    def sample(params, keys, condition):
        def apply(z, t, c, keep):
            return denoiser.apply({"params": params[1]}, z, t, c, keep)

        guided = options.guidance and condition is not None
        denoise = guide(apply, condition, options.guidance, options.when()) if guided else bind(apply, condition)
        final = sampler(denoise, keys, sampler.noise(keys, net.code_shape), temperature=options.temperature)
        return net.apply({"params": params[0]}, final, method="decode")

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
    condition = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), one)
    where = mesh_lib.batch_sharding(mesh)
    return sample, (params, keys, condition), (mesh_lib.replicated(mesh), where, where)


def table(names: list[str], mesh_devices: int, *, compiled: bool) -> str:
    """Markdown of the plans of shipped configs, both stages, on so many devices."""
    lines = [
        "| config | stage | bits an image | parameters | batch | TFLOP a step | GFLOP an example | state a device | "
        "temporary a device |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        config = config_lib.load(name)
        mesh = config_lib.build_mesh(config)
        if mesh.size != mesh_devices:
            raise ValueError(f"{mesh.size} devices are there, the table is of {mesh_devices}")
        for stage in ("autoencoder", "prior"):
            data = {"num_classes": CLASSES.get(name, 0), "condition_shape": CONDITIONS.get(name, ())}
            row = plan(config, stage, mesh, compiled=compiled, **data)
            temporary = "" if row.temporary_bytes is None else f"{row.temporary_bytes / 2**30:.2f} GiB"
            lines.append(
                f"| `{name}` | {stage} | {row.bits:,} | {row.parameters / 1e6:.1f} M | {row.batch_size} | "
                f"{row.flops / 1e12:.4g} | {row.flops / row.batch_size / 1e9:.4g} | {row.state_bytes / 2**30:.2f} GiB | "
                f"{temporary} |"
            )
    return "\n".join(lines) + "\n"


def write(path: epath.PathLike, text: str, devices: int) -> None:
    """Writes a table with what its columns mean."""
    epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
    epath.Path(path).write_text(f"{ABOUT.format(devices=devices)}\n{text}")
