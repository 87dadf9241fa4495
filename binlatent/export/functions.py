"""What is exported: pure functions of (parameters, arrays), with a symbolic batch and without typed keys."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax import ShapeDtypeStruct, export

from binlatent import prng
from binlatent.nets.condition import Condition
from binlatent.pipeline import Pipeline
from binlatent.sampling import programs
from binlatent.sampling.conditions import conditioning
from binlatent.sampling.options import SamplingOptions
from binlatent.typing import Array

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """A function to export, `call(params, *arguments)` with params {name: array}.

    Attributes:
      arguments: shape and type of each, by name and in order; `b` is any number of examples.
      results: names of its results, in order.
    """

    name: str
    call: Callable[..., tuple[Array, ...]]
    arguments: dict[str, ShapeDtypeStruct]
    results: tuple[str, ...]

    def export(self, params: dict[str, Any]) -> export.Exported:
        """The function for every platform of `PLATFORMS`; parameters stay arguments, so that it is small."""
        shapes = {name: ShapeDtypeStruct(x.shape, x.dtype) for name, x in params.items()}
        return export.export(jax.jit(self.call), platforms=PLATFORMS)(shapes, *self.arguments.values())


def functions(model: Pipeline, options: SamplingOptions) -> list[Function]:
    """`encode`, `decode`, `denoise` and `sample`, as far as the model has the halves that they need.

    Args:
      options: of `sample`: steps and the reverse step are fixed; the temperature and, where it is not 0, the weight of the
        guidance remain arguments.
    """
    batch, text = export.symbolic_shape("b, n")
    made = []
    if model.autoencoder is not None:
        made += [_encode(model, batch), _decode(model, batch)]
    if model.prior is not None:
        made += [_denoise(model, batch, text), _sample(model, batch, text, options)]
    return made


def _encode(model: Pipeline, batch: Any) -> Function:
    net = model.autoencoder.net

    def encode(params, images):
        return (programs.encode(unflatten_dict(params, sep="/")["autoencoder"], images, None, net=net),)

    images = ShapeDtypeStruct((batch, net.resolution, net.resolution, net.image_channels), jnp.uint8)
    return Function(name="encode", call=encode, arguments={"images": images}, results=("codes",))


def _decode(model: Pipeline, batch: Any) -> Function:
    net = model.autoencoder.net

    def decode(params, codes):
        return (programs.decode(unflatten_dict(params, sep="/")["autoencoder"], codes, net=net),)

    codes = ShapeDtypeStruct((batch, *model.code_shape), jnp.bool_)
    return Function(name="decode", call=decode, arguments={"codes": codes}, results=("images",))


def _condition(model: Pipeline, batch: Any, text: Any) -> dict[str, ShapeDtypeStruct]:
    """The arguments that condition the prior, by the names of `Condition`; a text has any number of tokens."""
    wanted, arguments = conditioning(model.prior.metadata), {}
    if wanted.num_classes:
        arguments["label"] = ShapeDtypeStruct((batch,), jnp.int32)
    if wanted.vector_width:
        arguments["vector"] = ShapeDtypeStruct((batch, wanted.vector_width), jnp.float32)
    if wanted.vocabulary:
        arguments["tokens"] = ShapeDtypeStruct((batch, text), jnp.int32)
    elif wanted.token_width:
        tokens = model.prior.metadata["condition_shape"][:-1] or [0]  # 0: any number of them
        arguments["tokens"] = ShapeDtypeStruct((batch, tokens[0] or text, wanted.token_width), jnp.float32)
    if model.prior.metadata.get("text") and wanted.texts:
        arguments["token_mask"] = ShapeDtypeStruct((batch, text), jnp.bool_)
    return arguments


def _denoise(model: Pipeline, batch: Any, text: Any) -> Function:
    net, objective = model.prior.net, model.objective
    condition = _condition(model, batch, text)

    def denoise(params, codes, t, *given):
        params = unflatten_dict(params, sep="/")["prior"]
        found = Condition(**dict(zip(condition, given, strict=False))) if condition else None
        mask = given[-1] if condition else None
        return (programs.denoise(params, codes, t, found, mask, net=net, objective=objective),)

    arguments = {
        "codes": ShapeDtypeStruct((batch, *model.code_shape), jnp.bool_),
        "t": ShapeDtypeStruct((batch,), jnp.float32),
    }
    if condition:
        arguments |= condition | {"condition_mask": ShapeDtypeStruct((batch,), jnp.bool_)}
    return Function(name="denoise", call=denoise, arguments=arguments, results=("flip_log_odds",))


def _sample(model: Pipeline, batch: Any, text: Any, options: SamplingOptions) -> Function:
    prior, autoencoder = model.prior, model.autoencoder
    condition = _condition(model, batch, text)
    guided = bool(condition and options.guidance)
    static = {
        "net": prior.net,
        "objective": model.objective,
        "autoencoder": autoencoder and autoencoder.net,
        "sampler": options.sampler(model.objective.schedule),
        "guidance": options.when() if guided else None,
        "clamp": "noised",
        "start": 1.0,
        "trajectory": False,
        "image_dtype": "uint8",
    }

    def sample(params, seed, index, temperature, *given):
        trees = unflatten_dict(params, sep="/")
        keys = prng.at(prng.stream(jax.random.key(seed), "sample"), index)
        weight = given[-1] if guided else jnp.float32(0)
        found = Condition(**dict(zip(condition, given, strict=False))) if condition else None
        images, codes, _ = programs.generate(
            trees["prior"], trees.get("autoencoder"), keys, found, weight, temperature,
            None, None, **static,
        )  # fmt: skip
        return (codes,) if images is None else (images, codes)

    arguments = {
        "seed": ShapeDtypeStruct((), jnp.uint32),
        "index": ShapeDtypeStruct((batch,), jnp.uint32),
        "temperature": ShapeDtypeStruct((), jnp.float32),
    }
    arguments |= condition | ({"guidance": ShapeDtypeStruct((), jnp.float32)} if guided else {})
    results = ("codes",) if autoencoder is None else ("images", "codes")
    return Function(name="sample", call=sample, arguments=arguments, results=results)
