"""The release's files → a work directory that every command can use as if it had been trained here."""

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent.checkpoint import Checkpoints, fingerprint
from binlatent.convert.autoencoder import ImportedAutoencoder, import_autoencoder
from binlatent.convert.denoiser import ImportedDenoiser, import_denoiser
from binlatent.convert.hyperparameters import Hyperparameters
from binlatent.convert.torch_file import read_state
from binlatent.errors import UserError
from binlatent.files import user_path
from binlatent.nets import weights
from binlatent.train.state import TrainState
from binlatent.typing import PyTree

Path = str | os.PathLike
OFFICIAL_LEVELS = 5  # of the release's autoencoders, whose tokens are 16×16 pixels


def to_workdir(
    *,
    workdir: epath.PathLike,
    autoencoder: Path | None = None,
    denoiser: Path | None = None,
    hparams: dict[str, Any] | Path | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Converts an autoencoder (`binaryae_*.th`), a denoiser (`bld_*.th`) or both into a new work directory.

    Args:
      workdir: created by this call.
      hparams: the release's hyper-parameters by its own names, or a JSON file of them. Those that can be read from the
        tensors may be omitted, and otherwise must agree.
      overrides: `section.key=value` for the work directory's config, such as `data.path=photos`.

    Returns:
      A summary in lines of text: networks, parameters, unused tensors and the reasons.

    Raises:
      UserError: a file or hyper-parameter is wrong; nothing is written then.
    """
    if autoencoder is None and denoiser is None:
        raise UserError("nothing to convert: give --autoencoder, --denoiser, or both")
    workdir = user_path(workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty; give the path of a new work directory")

    hyperparameters = Hyperparameters(hparams)
    ae = den = None
    try:
        if autoencoder is not None:
            ae = import_autoencoder(read_state(path := autoencoder), hyperparameters, os.fspath(autoencoder))
        if denoiser is not None:
            den = import_denoiser(read_state(path := denoiser), hyperparameters, os.fspath(denoiser))
    except ValueError as error:  # of a network that cannot be
        raise UserError(f"{path}, with these hyper-parameters: {error}") from error
    if ae and den and ae.net.code_shape != den.net.code_shape:
        raise UserError(
            f"the autoencoder's codes have (y, x, k) {ae.net.code_shape} and the denoiser's {den.net.code_shape}: they do "
            "not belong together (or img_size or latent_shape is wrong)"
        )
    lines = []
    config = config_lib.override(_config(ae, den, autoencoder, denoiser, hyperparameters, lines), list(overrides))
    config_lib.check(config)

    existed = workdir.exists()
    try:
        if ae:
            variables = ae.discriminator_variables or {}
            params = {"autoencoder": ae.params} | ({"discriminator": variables["params"]} if variables else {})
            extra = {}
            if variables:  # as in `DiscriminatorTraining.init`
                averages = {side: np.zeros((), np.float32) for side in ("real", "fake")}
                extra = {"statistics": variables["batch_stats"], "averages": averages}
            _save(workdir, "autoencoder", params, extra, config, {"data": ""}, autoencoder)
        if den:
            _save(workdir, "prior", {"denoiser": den.params}, {}, config, _metadata(ae, den), denoiser)
        config_lib.write(workdir / "config.json", config)
    except BaseException:
        workdir.rmtree(missing_ok=True)
        if existed:
            workdir.mkdir()
        raise
    lines = _summary(ae, den, hyperparameters) + lines
    if ae and ae.perceptual is not None and not weights.path_of("lpips").exists():
        lines.append(f"LPIPS network, for training with the perceptual loss: {weights.save('lpips', ae.perceptual)}")
    return lines


def _config(
    ae: ImportedAutoencoder | None,
    den: ImportedDenoiser | None,
    ae_file: Path | None,
    den_file: Path | None,
    hparams: Hyperparameters,
    lines: list[str],
) -> ConfigDict:
    """The config of the imported networks. Notes on it are appended to `lines`."""
    config = config_lib.defaults()
    with config.unlocked():
        config.data.source = "folder"
        for stage, file in (("autoencoder", ae_file), ("prior", den_file)):
            # an imported stage is finished
            config[f"{stage}_training"].num_steps = _step(file) if file is not None else 100_000
            config[f"{stage}_training"].batch_size = 16
            config[f"{stage}_optimizer"].learning_rate = 1e-4
        if ae:
            config.data.resolution, config.data.channels = ae.net.resolution, ae.net.image_channels
            config.autoencoder = _section(ae.net, "resolution", "image_channels")
            for name in ("sample_entropy", "batch_entropy"):  # the release has no such terms
                config.autoencoder_loss[name].weight = 0.0
            config.discriminator_optimizer.learning_rate = 1e-4
            if ae.discriminator:  # for fine-tuning with the adversarial term
                config.discriminator.architecture = "official"
                config.discriminator.channels, config.discriminator.layers = (
                    ae.discriminator.channels,
                    ae.discriminator.layers,
                )
        else:
            y, x, k = den.net.code_shape
            config.data.resolution = max(y, x) * 2 ** (OFFICIAL_LEVELS - 1)
            config.autoencoder.code_bits = k
        if den:
            config.prior = _section(den.net, "code_shape")
            config.prior.architecture = "official"
            config.prior_objective.schedule = den.schedule
            config.prior_objective.weighting = weighting = _weighting(hparams, lines)
            config.prior_objective.parametrization = "leave_one_out" if weighting == "balanced" else "flip"
            config.sampling.steps = min(config.sampling.steps, den.net.total_steps)
    return config


def _section(net: nn.Module, *without: str) -> ConfigDict:
    """The fields of a network as a config section."""
    names = [field.name for field in dataclasses.fields(net) if field.name not in ("parent", "name", *without)]
    return ConfigDict({name: "float32" if name == "dtype" else getattr(net, name) for name in names})


def _weighting(hparams: Hyperparameters, lines: list[str]) -> str:
    """Our name of the loss that the denoiser was trained with, which determines the meaning of its output."""
    focal = hparams.get("focal", float, None)
    if focal is None:
        lines.append("note: the hyper-parameters lack focal; 0, the release's default, is assumed (balanced loss)")
        return "balanced"
    if focal > 0:
        lines.append(f"note: trained with focal {focal:g}; its output is interpreted as for focal 0, an approximation")
    return "uniform" if focal < 0 else "balanced"


def _step(file: Path) -> int:
    """The training step in a file's name, such as `bld_ema_1000.th`; 1 if there is none."""
    match = re.search(r"_(\d+)\.\w+$", os.fspath(file))
    return max(int(match[1]), 1) if match else 1


def _metadata(ae: ImportedAutoencoder | None, den: ImportedDenoiser) -> dict[str, Any]:
    """The checkpoint metadata that `experiment` writes for a prior."""
    net = den.net
    condition = [net.condition_width] if net.condition_width else []
    return {
        "data": "",
        "autoencoder": fingerprint(ae.params) if ae else "",
        "code_shape": list(net.code_shape),
        "num_classes": net.num_classes,
        "class_names": [],
        "condition_shape": [0, *condition] if net.cross_attention else condition,  # any number of text tokens
    }


def _save(
    workdir: epath.Path,
    stage: str,
    ema: PyTree,
    extra: PyTree,
    config: ConfigDict,
    metadata: dict[str, Any],
    file: Path,
) -> None:
    """Saves a checkpoint of EMA parameters alone; there is no optimizer state."""
    training = config[f"{stage}_training"]
    fresh = TrainState.create({}, {}, jax.tree.map(jnp.asarray, extra))
    state = dataclasses.replace(fresh, step=jnp.int32(training.num_steps), ema=jax.tree.map(jnp.asarray, ema))
    metadata = metadata | {
        "stage": stage,
        "seed": config.seed,
        "batch_size": training.batch_size,
        "num_steps": training.num_steps,
        "config": config_lib.to_json(config),
        "imported": os.path.basename(os.fspath(file)),
    }
    checkpoints = Checkpoints(workdir / stage / "checkpoints")
    checkpoints.save(training.num_steps, state, metadata)
    checkpoints.wait()
    checkpoints.close()


def _summary(ae: ImportedAutoencoder | None, den: ImportedDenoiser | None, hparams: Hyperparameters) -> list[str]:
    lines, unused = [], {}
    if ae:
        y, x, k = ae.net.code_shape
        lines.append(f"autoencoder: {count(ae.params):,} parameters, code {y}×{x}×{k}")
        if ae.discriminator:
            lines.append(f"discriminator: {count(ae.discriminator_variables['params']):,} parameters")
        unused |= ae.unused
    if den:
        net = den.net
        condition = f"{net.num_classes} classes" if net.num_classes else f"vectors of {net.condition_width}"
        condition = f"text tokens of {net.condition_width}" if net.cross_attention else condition
        condition = condition if net.num_classes or net.condition_width else "none"
        lines.append(
            f"denoiser: {count(den.params):,} parameters, trained with {net.total_steps} steps and the {den.schedule} "
            f"schedule; condition: {condition}"
        )
        unused |= den.unused
    lines += [f"not needed: {n} tensors, {reason}" for reason, n in Counter(unused.values()).items()]
    if hparams.unused():
        lines.append(f"unused hyper-parameters: {', '.join(hparams.unused())}")
    if ae and den and den.embedding is not None:
        ours = ae.params["embed"]["kernel"]
        if ours.shape != den.embedding.shape or not np.allclose(ours, den.embedding, rtol=1e-2, atol=1e-3):
            lines.append(
                "warning: the denoiser's copy of the embedding is not this autoencoder's: it was probably trained on "
                "another autoencoder's codes, and its samples will not decode to images"
            )
    return lines


def count(params: PyTree) -> int:
    """The number of parameters in a tree."""
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
