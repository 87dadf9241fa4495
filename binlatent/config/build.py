"""Every key of a configuration, and the objects that its sections configure.

A configuration has one section for each dataclass or module below; `defaults` declares every key from their own fields, so
that a key has its meaning and its default in one place.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict, config_dict

from binlatent.config.values import check_values, fits
from binlatent.data.options import DataOptions, ExpectedData
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import schedule
from binlatent.errors import UserError
from binlatent.mesh import MeshShape
from binlatent.nets import weights
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.nets.condition import Conditioning
from binlatent.nets.denoiser import Denoiser
from binlatent.nets.official_discriminator import PatchDiscriminator
from binlatent.nets.patchgan import PatchGAN
from binlatent.prng import check_seed
from binlatent.sampling.options import SamplingOptions
from binlatent.text.options import TextOptions
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import TERMS, AutoencoderStage
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import Training
from binlatent.train.perceptual import LOSSES
from binlatent.train.prior import PriorStage
from binlatent.train.terms import Term

# Terms of the autoencoder's loss that a config may weigh, and the weights they have unless it does. The entropies make
# bits sure and all of them used: sharper pictures, and codes that take the prior fewer bits (docs/ablation.md).
LOSS_TERMS = dict.fromkeys(TERMS, 0.0) | {"l1": 1.0, "sample_entropy": 0.02, "batch_entropy": 0.02}
DISCRIMINATORS = {"patchgan": PatchGAN, "official": PatchDiscriminator}
LINEN_FIELDS = ("parent", "name")  # of every linen module; no options


def _fields(cls, *without: str, **values) -> ConfigDict:
    """The fields of a dataclass or module with their defaults; a field without one must be set by the config."""
    section = ConfigDict(type_safe=True)
    without += LINEN_FIELDS if issubclass(cls, nn.Module) else ()
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        if field.default is not dataclasses.MISSING:
            section[field.name] = "float32" if field.name == "dtype" else field.default
        else:
            section[field.name] = config_dict.placeholder(field.type)  # None until a config sets it
    section.update(values)
    return section


def defaults() -> ConfigDict:
    """Every key there is. A config starts from it: `config = defaults(); config.data.source = "folder"`."""
    config = ConfigDict()
    config.seed = 0
    config.mesh = _fields(MeshShape)
    config.data = _fields(DataOptions)
    config.plan = _fields(ExpectedData)
    config.autoencoder = _fields(BinaryAutoencoder, "resolution", "image_channels")
    config.autoencoder_loss = ConfigDict(
        {name: _fields(Term, "name", weight=weight) for name, weight in LOSS_TERMS.items()}, type_safe=True
    )
    config.autoencoder_optimizer = _fields(Optimizer)
    config.autoencoder_training = _fields(Training)
    # Used where autoencoder_loss.adversarial has a weight.
    config.discriminator = _fields(PatchGAN)
    config.discriminator.architecture = "patchgan"
    config.discriminator_loss = _fields(Adversarial)
    config.discriminator_augmentation = _fields(Augmentation)
    config.discriminator_optimizer = _fields(Optimizer)
    config.codes = ConfigDict({"flips": False})
    config.prior = _fields(Denoiser, "code_shape", "conditioning")
    config.prior.architecture = "transformer"
    config.text = _fields(TextOptions)
    config.prior_objective = _fields(Objective, "schedule")
    config.prior_objective.schedule = "linear"
    config.prior_objective.label_dropout = 0.1
    config.prior_optimizer = _fields(Optimizer)
    config.prior_training = _fields(Training)
    config.sampling = _fields(SamplingOptions)
    return config.lock()


def _build(section: str, make, config: Mapping[str, Any] | ConfigDict, **derived):
    """Splats a section into what it configures; a wrong key or value names the section."""
    values = dict(config)
    without = (*derived, *(LINEN_FIELDS if issubclass(make, nn.Module) else ()))
    check_values(f"config section {section!r}", make, values, without=without)
    values = derived | values
    required = (f.name for f in dataclasses.fields(make) if f.default is dataclasses.MISSING)
    if missing := [name for name in required if values.get(name) is None]:
        raise UserError(f"config section {section!r} does not set {', '.join(missing)}")
    try:
        return make(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"config section {section!r}: {error}") from error


def _dtype(section: str, name: Any) -> jnp.dtype:
    try:
        dtype = jnp.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # NumPy reads it as a structure of types
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"config section {section!r}: dtype is {name!r}: float32, bfloat16 or float16 is expected")
    return dtype


def check(config: ConfigDict) -> None:
    """Builds everything that can be built without data, so that a wrong value is found before anything is trained.

    Raises:
      UserError: it names the section, the key or value, and what was expected.
    """
    sections = set(defaults())
    if unknown := set(config) - sections:
        raise UserError(f"no config section {', '.join(sorted(unknown))}; there are {', '.join(defaults())}")
    if missing := sections - set(config):
        raise UserError(
            f"config without {', '.join(sorted(missing))}: begin with `config = binlatent.config.defaults()`"
        )
    check_seed(config.seed)
    if not isinstance(config.codes.flips, bool):
        raise UserError(f"config.codes.flips is {config.codes.flips!r}: True or False is expected")
    build_data(config), build_plan(config), build_mesh(config), build_sampling(config), build_autoencoder_stage(config)
    build_text(config), build_prior_stage(config, build_autoencoder(config).code_shape, Conditioning())


def build_data(config: ConfigDict) -> DataOptions:
    return _build("data", DataOptions, config.data)


def build_text(config: ConfigDict) -> TextOptions:
    return _build("text", TextOptions, config.text)


def build_plan(config: ConfigDict) -> ExpectedData:
    return _build("plan", ExpectedData, config.plan)


def build_mesh(config: ConfigDict):
    shape = _build("mesh", MeshShape, config.mesh)
    try:
        return shape.build()
    except ValueError as error:
        raise UserError(f"{error}; set --config.mesh.data, .fsdp and .tensor") from error


def build_sampling(config: ConfigDict, **changes) -> SamplingOptions:
    """The sampling defaults of a config, with changes.

    Raises:
      UserError: an unknown option or a value of another type or out of range.
    """
    options = _build("sampling", SamplingOptions, config.sampling)
    check_values("sampling options", SamplingOptions, changes)
    try:
        return dataclasses.replace(options, **changes)
    except (TypeError, ValueError) as error:
        raise UserError(f"sampling options: {error}") from error


def build_training(config: ConfigDict, stage: str) -> Training:
    return _build(f"{stage}_training", Training, config[f"{stage}_training"])


def build_autoencoder(config: ConfigDict) -> BinaryAutoencoder:
    """The autoencoder's network, for the images of the data section."""
    section = dict(config.autoencoder)
    section["dtype"] = _dtype("autoencoder", section["dtype"])
    images = {"resolution": config.data.resolution, "image_channels": config.data.channels}
    return _build("autoencoder", BinaryAutoencoder, section, **images)


def build_denoiser(config: ConfigDict, code_shape: tuple[int, int, int], conditioning: Conditioning) -> nn.Module:
    """The prior's network, for codes of a shape and the conditions that come with them.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.prior)
    architecture, section["dtype"] = section.pop("architecture"), _dtype("prior", section["dtype"])
    if architecture == "transformer":
        return _build("prior", Denoiser, section, code_shape=tuple(code_shape), conditioning=conditioning)
    if architecture == "official":
        from binlatent.nets.official_denoiser import OfficialDenoiser

        # an imported model says itself what it is conditioned on
        section |= _official_conditioning(conditioning) if conditioning else {}
        return _build("prior", OfficialDenoiser, section, code_shape=tuple(code_shape))
    raise UserError(f"config.prior.architecture is {architecture!r}: 'transformer' or 'official' is expected")


def _official_conditioning(conditioning: Conditioning) -> dict[str, Any]:
    """The official denoiser's own fields of a conditioning, of which it takes one part."""
    widths = [conditioning.vector_width, conditioning.token_width]
    if conditioning.vocabulary or sum(bool(n) for n in (conditioning.num_classes, *widths)) > 1:
        raise UserError(
            "config.prior.architecture 'official' is conditioned on classes, vectors or text features, one of them; these "
            f"data have {conditioning}: set text.use='pooled' or data.labels=False, or take the architecture 'transformer'"
        )
    cross = bool(conditioning.token_width)
    return {"num_classes": conditioning.num_classes, "condition_width": max(widths), "cross_attention": cross}


def build_objective(config: ConfigDict) -> Objective:
    section = {k: v for k, v in config.prior_objective.items() if k != "label_dropout"}
    try:
        section["schedule"] = schedule(str(section["schedule"]))
    except ValueError as error:
        raise UserError(f"config section 'prior_objective': {error}") from error
    return _build("prior_objective", Objective, section)


def build_discriminator(config: ConfigDict) -> DiscriminatorTraining:
    """The discriminator and its training.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.discriminator)
    architecture, section["dtype"] = section.pop("architecture"), _dtype("discriminator", section["dtype"])
    if str(architecture) not in DISCRIMINATORS:
        raise UserError(f"config.discriminator.architecture is {architecture!r}: one of {', '.join(DISCRIMINATORS)}")
    if architecture == "official":
        del section["norm"]  # it has BatchNorm
    return DiscriminatorTraining(
        net=_build("discriminator", DISCRIMINATORS[architecture], section),
        adversarial=_build("discriminator_loss", Adversarial, config.discriminator_loss),
        augmentation=_build("discriminator_augmentation", Augmentation, config.discriminator_augmentation),
        optimizer=_build("discriminator_optimizer", Optimizer, config.discriminator_optimizer),
    )


def build_autoencoder_stage(config: ConfigDict, frozen: Mapping[str, Any] | None = None) -> AutoencoderStage:
    """Stage 1, with the weights of the perceptual networks that its loss asks for.

    Args:
      frozen: those weights by name, or their shapes; None reads them from this machine's cache.

    Raises:
      UserError: a wrong key or value, or such weights that this machine does not have yet.
    """
    training = build_training(config, "autoencoder")
    terms = tuple(
        _build(f"autoencoder_loss.{name}", Term, section, name=name)
        for name, section in config.autoencoder_loss.items()
    )
    enabled = {term.name for term in terms if term.enabled}
    try:
        return AutoencoderStage(
            net=build_autoencoder(config),
            terms=terms,
            optimizer=_build("autoencoder_optimizer", Optimizer, config.autoencoder_optimizer),
            num_steps=training.num_steps,
            micro_batches=training.micro_batches,
            discriminator=build_discriminator(config) if "adversarial" in enabled else None,
            frozen={name: frozen[name] if frozen else weights.load(name) for name in LOSSES if name in enabled},
        )
    except ValueError as error:
        raise UserError(f"config section 'autoencoder_loss': {error}") from error


def build_prior_stage(config: ConfigDict, code_shape: tuple[int, int, int], conditioning: Conditioning) -> PriorStage:
    training = build_training(config, "prior")
    dropout = config.prior_objective.label_dropout
    if not fits(dropout, float) or not 0 <= dropout <= 1:
        raise UserError(f"config.prior_objective.label_dropout is {dropout!r}: a number from 0 to 1 is expected")
    net, objective = build_denoiser(config, code_shape, conditioning), build_objective(config)
    components = {name: getattr(net, name, 1) for name in ("components", "code_components")}
    if objective.weighting == "balanced" and max(components.values()) > 1:
        raise UserError(
            "config.prior_objective.weighting is 'balanced', which is a loss of independent bits, and config.prior has "
            f"{components}: set prior.components to 1 and prior.code_components to 1, or another weighting"
        )
    return PriorStage(
        net=net,
        code_shape=tuple(code_shape),
        objective=objective,
        label_dropout=dropout,
        optimizer=_build("prior_optimizer", Optimizer, config.prior_optimizer),
        num_steps=training.num_steps,
        micro_batches=training.micro_batches,
    )
