"""The release's autoencoder file (`binaryae_*.th`): `ae.*`, `disc.*` and `perceptual.*`."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp

from binlatent.convert import mapping
from binlatent.convert.hyperparameters import Hyperparameters
from binlatent.convert.mapping import Sources, State
from binlatent.errors import UserError
from binlatent.nets.autoencoder import BinaryAutoencoder, Layer, decoder_layers, encoder_layers
from binlatent.nets.official_discriminator import PatchDiscriminator
from binlatent.typing import PyTree

ENCODER, DECODER = "ae.encoder.blocks", "ae.generator.blocks"

# the kind of layer, as a letter, from the names of its parts
_LETTERS = (
    dict.fromkeys(("norm1", "conv1", "norm2", "conv2", "conv_out"), "b")
    | dict.fromkeys(("norm", "q", "k", "v", "proj_out"), "a")
    | {"conv": "s", "weight": "c", "bias": "c"}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedAutoencoder:
    """An imported autoencoder and the other contents of its file.

    Attributes:
      net, params: the autoencoder.
      discriminator, discriminator_variables: the discriminator, and its `params` and `batch_stats`; None if the file has
        none.
      perceptual: parameters of `nets.vgg.LPIPS`; None if the file has none.
      unused: names of unused tensors, with the reason.
    """

    net: BinaryAutoencoder
    params: PyTree
    discriminator: PatchDiscriminator | None
    discriminator_variables: PyTree | None
    perceptual: PyTree | None
    unused: dict[str, str]


def import_autoencoder(state: State, hparams: Hyperparameters, file: str) -> ImportedAutoencoder:
    """Imports the autoencoder of a state dict; `file` is its name in messages.

    Raises:
      UserError: the tensors are not those of the release's autoencoder, or contradict the hyper-parameters.
    """
    if not any(key.startswith("ae.") for key in state):
        other = "; it looks like a denoiser: use --denoiser" if any("_denoise_fn" in key for key in state) else ""
        raise UserError(f"{file} is not an autoencoder of the release: no tensor's name begins with 'ae.'{other}")
    net = _autoencoder(state, hparams)
    image = jnp.zeros((1, net.resolution, net.resolution, net.image_channels))
    abstract = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    params, known = mapping.fill(abstract, _sources(net), state)

    unused = {key: "never used by the release" for key in state if key.startswith("ae.generator.logsigma.")}
    for prefix, layers in ((ENCODER, encoder_layers(net)), (DECODER, decoder_layers(net))):
        width = 0
        for i, layer in enumerate(layers):
            if layer.kind == "block" and layer.channels == width:
                reason = "ignored by the release in blocks that keep the width"
                unused |= {key: reason for key in state if key.startswith(f"{prefix}.{i}.conv_out.")}
            width = layer.channels
    discriminator, variables, taken = _discriminator(state, net, hparams)
    perceptual, names = _perceptual(state)
    unused |= names
    known |= taken | unused.keys() | {key for key in state if key.startswith("perceptual.")}
    mapping.refuse_unknown(state, known, file)
    return ImportedAutoencoder(
        net=net,
        params=params,
        discriminator=discriminator,
        discriminator_variables=variables,
        perceptual=perceptual,
        unused=unused,
    )


def _letters(state: State, prefix: str) -> str:
    """The layers `prefix.0`, `prefix.1`, … as letters: b block, a attention, s resampling, c convolution, n norm."""
    kinds_by_layer: dict[int, set[str]] = {}
    for key in state:
        if key.startswith(f"{prefix}."):
            index, _, name = key.removeprefix(f"{prefix}.").partition(".")
            if index.isdigit():
                kinds_by_layer.setdefault(int(index), set()).add(_LETTERS.get(name.partition(".")[0], "?"))
    letters = ""
    for i in range(max(kinds_by_layer, default=-1) + 1):
        kinds = kinds_by_layer.get(i, set())
        if len(kinds) != 1 or (kinds == {"c"} and f"{prefix}.{i}.weight" not in state):
            raise UserError(
                f"the tensors of {prefix}.{i} are not a layer of the release: the file is damaged, or of another model"
            )
        letters += "n" if kinds == {"c"} and state[f"{prefix}.{i}.weight"].ndim == 1 else kinds.pop()
    return letters


def _levels(letters: str, pattern: str, prefix: str) -> list[tuple[int, bool]]:
    """(number of blocks, attention) of every level, in the order of the layers."""
    match = re.fullmatch(pattern, letters)
    levels = [re.fullmatch(r"(?:b)+|(?:ba)+", level) for level in match[1].split("s")] if match else [None]
    if not all(levels):
        raise UserError(
            f"the layers of {prefix} are {letters!r} (c convolution, n norm, b block, a attention, s resampling); the "
            f"release's order is {pattern!r}"
        )
    return [(level[0].count("b"), "a" in level[0]) for level in levels]


def _autoencoder(state: State, hparams: Hyperparameters) -> BinaryAutoencoder:
    encoder, decoder = _letters(state, ENCODER), _letters(state, DECODER)
    down = _levels(encoder, r"c([bas]+)babnc", ENCODER)
    up = _levels(decoder, r"n?cbab([bas]+)nc", DECODER)[::-1]

    first = _tensor(state, f"{ENCODER}.0.weight", 4)
    nf = hparams.settle("nf", first.shape[0], f"first convolution {ENCODER}.0")
    hparams.settle("n_channels", first.shape[1], f"first convolution {ENCODER}.0")
    widths, index = [], 1
    for blocks, attention in down:
        widths.append(_tensor(state, f"{ENCODER}.{index}.conv1.weight", 4).shape[0])
        index += blocks * (1 + attention) + 1
    if any(width % nf for width in widths):
        raise UserError(f"the encoder's levels have widths {widths}, which are not multiples of the first one, {nf}")
    multipliers = hparams.settle("ch_mult", tuple(width // nf for width in widths), "encoder")

    if len({blocks for blocks, _ in down}) > 1 or len(up) != len(down):
        raise UserError(
            f"the encoder's levels have (blocks, attention) {down} and the decoder's {up}, which do not fit the release"
        )
    res_blocks = hparams.settle("res_blocks", down[0][0], "encoder")
    counts = [blocks for blocks, _ in up]
    multiplier = hparams.get("gen_mul", float, None)
    if multiplier is None:
        multiplier = counts[0] / res_blocks if len(set(counts)) == 1 else tuple(n / res_blocks for n in counts)
    elif any(int(multiplier * res_blocks) != n for n in counts):
        hparams.settle("gen_mul", [n / res_blocks for n in counts], f"decoder with {counts} blocks per level")

    proj = _tensor(state, "ae.quantize.proj.0.weight", 4)
    bits = hparams.settle("codebook_size", proj.shape[0], "quantize.proj.0")
    width = hparams.settle("emb_dim", proj.shape[1], "quantize.proj.0")
    if hparams.get("quantizer", str, "binary") != "binary":
        raise UserError("the hyper-parameter quantizer is not 'binary'; only binary codes can be imported")
    resolution = _resolution(hparams, len(down))
    attention = tuple(resolution // 2**i for i, (_, has) in enumerate(down) if has)
    if "attn_resolutions" in hparams:
        levels = {resolution // 2**i for i in range(len(down))}
        resolutions = hparams.get("attn_resolutions", list, None)
        if levels & set(resolutions) != set(attention):
            hparams.settle("attn_resolutions", sorted(attention), f"encoder, for images of {resolution} pixels,")
    return BinaryAutoencoder(
        resolution=resolution,
        image_channels=first.shape[1],
        channels=nf,
        channel_multipliers=multipliers,
        res_blocks=res_blocks,
        decoder_multiplier=multiplier,
        attention_resolutions=attention,
        code_bits=bits,
        embedding_width=width,
        norm_first=hparams.settle("norm_first", decoder[0] == "n", "decoder"),
        deterministic=hparams.get("deterministic", bool, False),
        signed=hparams.get("use_tanh", bool, False),
    )


def _tensor(state: State, key: str, ndim: int) -> Any:
    if key not in state or state[key].ndim != ndim:
        actual = f"a tensor of shape {state[key].shape}" if key in state else "nothing"
        raise UserError(f"the file has {actual} under {key}; a tensor of {ndim} axes is expected")
    return state[key]


def _resolution(hparams: Hyperparameters, levels: int) -> int:
    shape = hparams.latent_shape()
    if shape is None:
        return hparams.need("img_size", int, "height = width of the images in pixels; or give latent_shape")
    if shape[0] != shape[1]:
        raise UserError(
            f"the hyper-parameter latent_shape is {shape[0]} × {shape[1]}; only square codes can be imported"
        )
    return hparams.settle("img_size", shape[0] * 2 ** (levels - 1), f"{levels} levels, with the latent_shape given,")


def _sources(net: BinaryAutoencoder) -> Sources:
    return (
        _stack("encoder", encoder_layers(net), ENCODER, net.image_channels)
        | mapping.conv(("code_logits",), "ae.quantize.proj.0", "codebook_size, emb_dim")
        | {("embed", "kernel"): mapping.Source(keys=("ae.quantize.embed.weight",), decided_by="codebook_size, emb_dim")}
        | _stack("decoder", decoder_layers(net), DECODER, net.embedding_width)
    )


def _stack(ours: str, layers: tuple[Layer, ...], theirs: str, width: int) -> Sources:
    sources: Sources = {}
    for i, layer in enumerate(layers):
        path, key, hint = (ours, layer.name), f"{theirs}.{i}", "nf, ch_mult, emb_dim"
        match layer.kind:
            case "conv":
                sources |= mapping.conv(path, key, f"{hint}, n_channels")
            case "norm":
                sources |= mapping.norm((*path, "group_norm"), key, f"{hint}, norm_first")
            case "down" | "up":
                sources |= mapping.conv((*path, "conv"), f"{key}.conv", hint)
            case "attention":
                sources |= mapping.norm((*path, "norm", "group_norm"), f"{key}.norm", hint)
                for name, their in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "proj_out")):
                    sources |= mapping.conv((*path, name), f"{key}.{their}", hint)
            case "block":
                hint += ", res_blocks, gen_mul"
                for n in ("1", "2"):
                    sources |= mapping.norm((*path, f"norm{n}", "group_norm"), f"{key}.norm{n}", hint)
                    sources |= mapping.conv((*path, f"conv{n}"), f"{key}.conv{n}", hint)
                if width != layer.channels:
                    sources |= mapping.conv((*path, "shortcut"), f"{key}.conv_out", hint)
        width = layer.channels
    return sources


def _discriminator(
    state: State, autoencoder: BinaryAutoencoder, hparams: Hyperparameters
) -> tuple[PatchDiscriminator | None, PyTree | None, set[str]]:
    weights = (key for key in state if re.fullmatch(r"disc\.main\.\d+\.weight", key))
    convolutions = [key for key in weights if state[key].ndim == 4]
    if not convolutions:
        return None, None, set()
    ndf = hparams.settle("ndf", _tensor(state, "disc.main.0.weight", 4).shape[0], "disc.main.0")
    layers = hparams.settle("disc_layers", len(convolutions) - 2, "discriminator")
    net = PatchDiscriminator(channels=ndf, layers=layers)
    image = jnp.zeros((1, autoencoder.resolution, autoencoder.resolution, autoencoder.image_channels))
    abstract = jax.eval_shape(net.init, jax.random.key(0), image)

    hint = "ndf, disc_layers"
    sources = mapping.conv(("params", "conv0"), "disc.main.0", hint)
    for i in range(1, layers + 1):
        index = 3 * i - 1  # of the convolution; its norm and LeakyReLU are next
        sources |= mapping.conv(("params", f"conv{i}"), f"disc.main.{index}", hint, bias=False)
        sources |= mapping.norm(("params", f"norm{i}"), f"disc.main.{index + 1}", hint)
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
            key = f"disc.main.{index + 1}.{theirs}"
            sources[("batch_stats", f"norm{i}", ours)] = mapping.Source(keys=(key,), decided_by=hint)
    sources |= mapping.conv(("params", "conv_out"), f"disc.main.{3 * layers + 2}", hint)
    variables, taken = mapping.fill(abstract, sources, state)
    counters = {key for key in state if re.fullmatch(r"disc\.main\.\d+\.num_batches_tracked", key)}
    return net, variables, taken | counters


def _perceptual(state: State) -> tuple[PyTree | None, dict[str, str]]:
    """The LPIPS network of `perceptual.*` if it is complete; otherwise the reasons why its tensors are unused."""
    from binlatent.convert.features import lpips_params

    prefix = "perceptual."
    theirs = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not theirs:
        return None, {}
    vgg, heads = {}, {}
    for key, value in theirs.items():
        if match := re.fullmatch(r"net\.slice\d\.(\d+\.(?:weight|bias))", key):
            vgg[f"features.{match[1]}"] = value
        elif re.fullmatch(r"lin\d\.model\.1\.weight", key):
            heads[key] = value
    try:
        return lpips_params(vgg, heads), {}
    except ValueError as error:
        return None, {prefix + key: f"not the LPIPS network of this package: {error}" for key in theirs}
