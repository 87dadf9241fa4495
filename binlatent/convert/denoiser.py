"""The release's denoiser file (`bld_*.th`): `_denoise_fn.*`, `scheduler.*` and `embedding_weight`."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.convert import mapping
from binlatent.convert.hyperparameters import Hyperparameters
from binlatent.convert.mapping import Source, Sources, State
from binlatent.diffusion.schedule import schedule
from binlatent.errors import UserError
from binlatent.nets.official_denoiser import OfficialDenoiser
from binlatent.typing import PyTree

NET = "_denoise_fn"
SCHEDULES = {"linear": "linear", "cos": "cosine", "sigmoid": "sigmoid"}  # theirs: ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedDenoiser:
    """An imported denoiser and the other contents of its file.

    Attributes:
      net, params: the denoiser.
      schedule: our name of its noise schedule.
      embedding: the file's copy of the autoencoder's embedding (k, d), which shows whether the two belong together;
        None if the file has none.
      unused: names of unused tensors, with the reason.
    """

    net: OfficialDenoiser
    params: PyTree
    schedule: str
    embedding: np.ndarray | None
    unused: dict[str, str]


def import_denoiser(state: State, hparams: Hyperparameters, file: str) -> ImportedDenoiser:
    """Imports the denoiser of a state dict; `file` is its name in messages.

    Raises:
      UserError: the tensors are not those of the release's denoiser, or contradict the hyper-parameters.
    """
    if not any(key.startswith(f"{NET}.") for key in state):
        other = "; it looks like an autoencoder: use --autoencoder" if any(k.startswith("ae.") for k in state) else ""
        raise UserError(f"{file} is not a denoiser of the release: no tensor's name begins with '{NET}.'{other}")
    steps, name = _schedule(state, hparams)
    net = _denoiser(state, hparams, steps)
    code, t = jnp.zeros((1, *net.code_shape), bool), jnp.zeros(1)
    abstract = jax.eval_shape(net.init, jax.random.key(0), code, t)["params"]
    params, known = mapping.fill(abstract, _sources(net), state)
    unused = {key: "a table of the schedule, which is known by name" for key in state if key.startswith("scheduler.")}
    if "embedding_weight" in state:
        unused["embedding_weight"] = "a copy of the autoencoder's embedding, which the denoiser does not use"
    mapping.refuse_unknown(state, known | unused.keys(), file)
    return ImportedDenoiser(
        net=net, params=params, schedule=name, embedding=state.get("embedding_weight"), unused=unused
    )


def _schedule(state: State, hparams: Hyperparameters) -> tuple[int, str]:
    """(total steps, our name of the schedule), from the file's tables if it has them."""
    table = state.get("scheduler.k_final")
    if table is None:
        steps = hparams.need("total_steps", int, "steps of the chain that the model was trained with")
        theirs = hparams.need("beta_type", str, "the noise schedule: linear, cos or sigmoid")
        if theirs not in SCHEDULES:
            raise UserError(f"the hyper-parameter beta_type is {theirs!r}; there are {', '.join(SCHEDULES)}")
        return steps, SCHEDULES[theirs]
    steps = hparams.settle("total_steps", table.size - 1, "scheduler.k_final")
    if table.ndim != 1 or steps < 1:
        raise UserError(f"the file's scheduler.k_final has shape {table.shape}; (total_steps + 1,) is expected")
    t = jnp.arange(1, steps + 1) / steps  # index 0 is a sentinel
    matching = [theirs for theirs, ours in SCHEDULES.items() if np.allclose(schedule(ours)(t), table[1:], atol=1e-4)]
    if not matching:
        raise UserError(f"the file's scheduler.k_final matches none of {', '.join(SCHEDULES)}: {table}")
    # several match if there is only one step
    theirs = hparams.get("beta_type", str, matching[0])
    if theirs not in matching:
        hparams.settle("beta_type", matching[0], "scheduler.k_final")
    return steps, SCHEDULES[theirs]


def _denoiser(state: State, hparams: Hyperparameters, steps: int) -> OfficialDenoiser:
    for key in (f"{NET}.tok_emb.weight", f"{NET}.pos_emb"):
        if key not in state or state[key].ndim != (3 if key.endswith("pos_emb") else 2):
            raise UserError(f"the file lacks {key}, or it has another shape: it is damaged, or not of the release")
    bits, width = state[f"{NET}.tok_emb.weight"].shape
    length = state[f"{NET}.pos_emb"].shape[1]
    hparams.settle("codebook_size", bits, f"{NET}.tok_emb")
    hparams.settle("bert_n_emb", width, f"{NET}.tok_emb")
    hparams.settle("block_size", length, f"{NET}.pos_emb")
    layers = {int(m[1]) for key in state if (m := re.match(rf"{NET}\.blocks\.(\d+)\.", key))}
    hparams.settle("bert_n_layers", len(layers), "blocks")
    if "embedding_weight" in state:
        hparams.settle("emb_dim", state["embedding_weight"].shape[-1], "embedding_weight")

    shape = hparams.latent_shape()
    if shape is None:
        side = math.isqrt(length)
        if side**2 != length:
            raise UserError(
                f"the hyper-parameters lack latent_shape, and the file's {length} tokens are not a square code"
            )
        shape = (side, side)
    elif shape[0] * shape[1] != length:
        hparams.settle("latent_shape", f"[1, …] with {length} tokens", f"{NET}.pos_emb")

    heads = hparams.need("bert_n_head", int, "attention heads")
    if heads < 1 or width % heads:
        raise UserError(f"the hyper-parameter bert_n_head is {heads}, which does not divide the width {width}")
    cross = hparams.settle("cross", f"{NET}.blocks.0.cross.kv.weight" in state, "blocks")
    num_classes, condition_width = 0, 0
    table = state.get(f"{NET}.cls_embedding.weight")
    if cross:
        condition_width = state[f"{NET}.blocks.0.cross.kv.weight"].shape[-1]
        hparams.settle("text_emb", condition_width, "blocks.0.cross.kv")
    elif f"{NET}.cls_embedding.bias" in state and table is not None:
        condition_width = table.shape[-1]  # a linear map of one vector
    elif table is not None:
        num_classes = hparams.settle("num_classes", table.shape[0], f"{NET}.cls_embedding")
    return OfficialDenoiser(
        code_shape=(*shape, bits),
        width=width,
        depth=len(layers),
        heads=heads,
        total_steps=steps,
        num_classes=num_classes,
        condition_width=condition_width,
        cross_attention=cross,
        predict="flip"
        if hparams.need("p_flip", bool, "whether the head predicts flips, as the release's do")
        else "z0",
    )


def _sources(net: OfficialDenoiser) -> Sources:
    width = "bert_n_emb"
    sources: Sources = {
        ("embed", "kernel"): Source(keys=(f"{NET}.tok_emb.weight",), decided_by=f"codebook_size, {width}"),
        ("position",): Source(keys=(f"{NET}.pos_emb",), layout="only", decided_by=f"block_size, latent_shape, {width}"),
    }
    # in the release, `l0` is the first layer
    sources |= mapping.dense(("time_in",), f"{NET}.time_step_embedding.l0", width)
    sources |= mapping.dense(("time_out",), f"{NET}.time_step_embedding.linear", width)
    sources |= mapping.norm(("norm_out",), f"{NET}.ln_f", width)
    sources |= mapping.dense(("head",), f"{NET}.head", f"codebook_size, {width}")
    if net.num_classes:
        key = f"{NET}.cls_embedding.weight"
        sources[("classes", "embedding")] = Source(keys=(key,), decided_by=f"num_classes, {width}")
    elif net.condition_width and not net.cross_attention:
        sources |= mapping.dense(("condition_in",), f"{NET}.cls_embedding", width)

    layer: Sources = {("gain_attention",): Source(keys=("gamma_1",), decided_by=width)}
    layer |= mapping.norm(("norm_attention",), "ln1", width)
    layer |= mapping.dense(("qkv",), "attn.qkv", width) | mapping.dense(("attention_out",), "attn.proj", width)
    if net.cross_attention:
        text = f"text_emb, {width}"
        layer |= {("gain_cross",): Source(keys=("gamma_1_5",), decided_by=width)}
        layer |= {("cross_null",): Source(keys=("cross.null_emb",), decided_by=text)}
        layer |= mapping.norm(("norm_cross",), "ln1_5", width)
        layer |= mapping.dense(("cross_query",), "cross.query", width)
        layer |= mapping.dense(("cross_key_value",), "cross.kv", text)
        layer |= mapping.dense(("cross_out",), "cross.proj", width)
    layer |= {("gain_mlp",): Source(keys=("gamma_2",), decided_by=width)}
    layer |= mapping.norm(("norm_mlp",), "ln2", width)
    layer |= mapping.dense(("mlp_in",), "mlp.0", width) | mapping.dense(("mlp_out",), "mlp.2", width)
    for path, source in layer.items():
        keys = tuple(f"{NET}.blocks.{i}.{source.keys[0]}" for i in range(net.depth))
        sources[("blocks", *path)] = dataclasses.replace(source, keys=keys, stacked=True)
    return sources
