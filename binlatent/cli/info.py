"""A description of a work directory."""

import json
import math
from typing import Any

import jax
from etils import epath

from binlatent import config as config_lib
from binlatent.checkpoint import load_ema
from binlatent.data.manifest import MANIFEST, Manifest
from binlatent.errors import UserError
from binlatent.experiment import ALL_STAGES, STAGES, Experiment
from binlatent.train.metrics import read_records

MOST_CLASSES = 40  # classes listed by name


def describe(workdir: epath.PathLike) -> str:
    """Lines of text about the stages, their parameters and latest scores, the codes, and the remaining stages."""
    experiment = Experiment.open(workdir)
    net = config_lib.build_autoencoder(experiment.config)
    y, x, k = net.code_shape
    pixels = net.resolution**2 * net.image_channels
    lines = [
        f"{workdir}",
        f"  images       {net.resolution}×{net.resolution}×{net.image_channels}, source {experiment.config.data.source}",
        f"  code         {y}×{x}×{k} = {y * x * k} bits per image, {pixels * 8 / (y * x * k):.1f} times fewer than its pixels",
    ]
    remaining = []
    for stage in (stage for stage in ALL_STAGES if stage in STAGES or experiment.step(stage)):
        lines += [f"  {stage:12s} {_stage(experiment, stage)}"]
        if stage == "prior":
            lines.insert(-1, f"  {'codes':12s} {_codes(experiment.codes)}")
        if stage in STAGES and not experiment.done(stage):
            remaining.append(stage)
    if remaining:
        lines.append(f"  remaining: {', '.join(remaining)} (binlatent run --workdir {workdir})")
    return "\n".join(lines)


def _stage(experiment: Experiment, stage: str) -> str:
    total = config_lib.build_training(experiment.config, stage).num_steps
    if not experiment.step(stage):
        return f"not trained (0 of {total} steps)"
    step, params, metadata = load_ema(experiment.workdir / stage / "checkpoints")
    parts = (f"{name} {sum(math.prod(a.shape) for a in jax.tree.leaves(tree)):,}" for name, tree in params.items())
    line = f"{step} of {total} steps; parameters: {', '.join(parts)}"
    if stage == "decoder":
        line += "; it decodes in place of the autoencoder's"
    if stage == "student":
        guidance = f", guidance up to {metadata['student']['guidance']:g}" if metadata["student"]["guidance"] else ""
        line += f"; of {metadata['student']['steps']} sampling steps{guidance} (--student)"
    records = [record for record in read_records(experiment.workdir / stage) if record["step"] <= step]
    scores = [record for record in records if any(key.startswith("validation/") for key in record)]
    for name in ("psnr", "dead_bits", "bits_per_bit") if scores else ():
        if f"validation/{name}" in scores[-1]:
            line += f"; {name} {scores[-1][f'validation/{name}']:.4g}"
    return line if stage == "student" else line + _classes(metadata) + _texts(metadata)


def _classes(metadata: dict[str, Any]) -> str:
    """A line that lists the classes for `--labels`; empty without classes."""
    num, names = metadata.get("num_classes", 0), metadata.get("class_names") or []
    if not num:
        return ""
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(names[:MOST_CLASSES]) if str(i) != name)
    more = ", …" if len(names) > MOST_CLASSES else ""
    return f"\n  {'classes':12s} {num}, 0 to {num - 1}" + (f": {listed}{more}" if listed else "")


def _texts(metadata: dict[str, Any]) -> str:
    """A line of the texts or embeddings that a prior is conditioned on."""
    line = f"\n  {'condition':12s} "
    if text := metadata.get("text"):
        if text["encoder"] == "own":
            return line + f"texts of up to {text['length']} tokens, {len(text['words'])} words (--prompt)"
        return line + f"texts, encoder {text['encoder']}, weights {text['weights']} (--prompt, --condition)"
    if shape := metadata.get("condition_shape"):
        return line + f"embeddings of shape ({', '.join(str(n or 'any') for n in shape)}) (--condition)"
    return ""


def _codes(folder: epath.Path) -> str:
    if not (folder / MANIFEST).exists():
        return "not encoded"
    try:
        manifest = Manifest.load(folder)
    except UserError as error:
        return f"unreadable: {json.dumps(str(error))}"
    counts = ", ".join(f"{manifest.count(split)} {split}" for split in manifest.shards)
    if manifest.spec.count > 1:
        counts += f", {manifest.spec.count} codes of each image"
    return f"{counts}; from autoencoder {manifest.spec.autoencoder}"
