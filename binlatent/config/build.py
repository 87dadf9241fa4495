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

from binlatent.config.values import check_values
from binlatent.data.options import CodeOptions, DataOptions, ExpectedData
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import schedule
from binlatent.errors import UserError
from binlatent.mesh import MeshShape
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.nets.condition import Conditioning
from binlatent.nets.denoiser import Denoiser
from binlatent.nets.patchgan import PatchGAN
from binlatent.sampling.options import SamplingOptions
from binlatent.text.options import TextOptions
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import IMAGE_TERMS, TERMS
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import DecoderOptions, StudentOptions, Training
from binlatent.train.terms import Term

# Terms of the autoencoder's loss that a config may weigh, and the weights they have unless it does. The entropies make
# bits sure and all of them used: sharper pictures, and codes that take the prior fewer bits (docs/ablation.md).
LOSS_TERMS = dict.fromkeys(TERMS, 0.0) | {"l1": 1.0, "sample_entropy": 0.02, "batch_entropy": 0.02}
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


def _unset(cls, *without: str) -> ConfigDict:
    """The fields of a dataclass, all None."""
    fields = {f.name: config_dict.placeholder(f.type) for f in dataclasses.fields(cls) if f.name not in without}
    return ConfigDict(fields, type_safe=True)


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
    # Decoder fine-tuning; keys that are None have the values of the autoencoder's sections; see `stage_section`.
    config.decoder = _fields(DecoderOptions)
    config.decoder_loss = ConfigDict({name: _unset(Term, "name") for name in (*IMAGE_TERMS, "adversarial")})
    config.decoder_optimizer = _unset(Optimizer)
    config.decoder_training = _unset(Training)
    # Used where autoencoder_loss.adversarial or decoder_loss.adversarial has a weight.
    config.discriminator = _fields(PatchGAN)
    config.discriminator.architecture = "patchgan"
    config.discriminator_loss = _fields(Adversarial)
    config.discriminator_augmentation = _fields(Augmentation)
    config.discriminator_optimizer = _fields(Optimizer)
    config.codes = _fields(CodeOptions)
    config.prior = _fields(Denoiser, "code_shape", "conditioning")
    config.prior.architecture = "transformer"
    config.text = _fields(TextOptions)
    config.prior_objective = _fields(Objective, "schedule")
    config.prior_objective.schedule = "linear"
    config.prior_objective.label_dropout = 0.1
    config.prior_optimizer = _fields(Optimizer)
    config.prior_training = _fields(Training)
    # A student of the prior, and its auxiliary denoiser. What is None in student_training is as in prior_training.
    config.student = _fields(StudentOptions)
    config.student_optimizer = _fields(Optimizer, learning_rate=1e-4, b1=0.0, b2=0.99, ema_decay=0.99)
    config.auxiliary_optimizer = _fields(Optimizer, "ema_decay", learning_rate=1e-3, b1=0.0, b2=0.99)
    config.student_training = _unset(Training)
    config.student_training.update(num_steps=1000, steps_per_call=1, evaluate_every=250, checkpoint_every=250)
    config.sampling = _fields(SamplingOptions)
    return config.lock()


def build_section(section: str, make, config: Mapping[str, Any] | ConfigDict, **derived):
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


def dtype_of(section: str, name: Any) -> jnp.dtype:
    try:
        dtype = jnp.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # NumPy reads it as a structure of types
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"config section {section!r}: dtype is {name!r}: float32, bfloat16 or float16 is expected")
    return dtype


def build_data(config: ConfigDict) -> DataOptions:
    return build_section("data", DataOptions, config.data)


def build_text(config: ConfigDict) -> TextOptions:
    return build_section("text", TextOptions, config.text)


def build_codes(config: ConfigDict) -> CodeOptions:
    return build_section("codes", CodeOptions, config.codes)


def build_decoder_options(config: ConfigDict) -> DecoderOptions:
    return build_section("decoder", DecoderOptions, config.decoder)


def build_student_options(config: ConfigDict) -> StudentOptions:
    return build_section("student", StudentOptions, config.student)


def build_plan(config: ConfigDict) -> ExpectedData:
    return build_section("plan", ExpectedData, config.plan)


def build_mesh(config: ConfigDict, devices=None):
    """The mesh over all devices of all processes, or over the given ones.

    Raises:
      UserError: a wrong key or value, or the mesh does not fit the devices or the tokens of a code.
    """
    shape = build_section("mesh", MeshShape, config.mesh)
    try:
        mesh = shape.build(devices)
        if (context := mesh.shape["context"]) > 1:
            y, x, _ = build_autoencoder(config).code_shape
            if y * x % context:
                raise ValueError(f"mesh.context={context} does not divide the {y}×{x} tokens of a code")
    except ValueError as error:
        raise UserError(f"{error}; set --config.mesh.data, .fsdp, .context and .tensor") from error
    return mesh


def build_sampling(config: ConfigDict) -> SamplingOptions:
    """The sampling defaults of a config."""
    return build_section("sampling", SamplingOptions, config.sampling)


def changed_sampling(options: SamplingOptions, **changes) -> SamplingOptions:
    """Sampling options with changes.

    Raises:
      UserError: an unknown option or a value of another type or out of range.
    """
    check_values("sampling options", SamplingOptions, changes)
    try:
        return dataclasses.replace(options, **changes)
    except (TypeError, ValueError) as error:
        raise UserError(f"sampling options: {error}") from error


def build_training(config: ConfigDict, stage: str) -> Training:
    return build_section(f"{stage}_training", Training, stage_section(config, stage, "training"))


def stage_section(config: ConfigDict, stage: str, kind: str) -> ConfigDict:
    """A section of a stage. In the decoder's, keys that are None have the values of the autoencoder's section, in the student's
    those of the prior's. Of a loss only weights are taken: its terms count from the first step, whatever they did before."""
    section, earlier = config[f"{stage}_{kind}"], {"decoder": "autoencoder", "student": "prior"}.get(stage)
    if not earlier:
        return section
    other = config[f"{earlier}_{kind}"]
    if kind == "loss":
        other = ConfigDict({name: {"weight": term.weight} for name, term in other.items()})
    return _filled(section, other)


def _filled(section: ConfigDict, other: ConfigDict) -> ConfigDict:
    def value(key, own):
        if key not in other:
            return own
        both = isinstance(own, ConfigDict) and isinstance(other[key], ConfigDict)
        return _filled(own, other[key]) if both else other[key] if own is None else own

    return ConfigDict({key: value(key, own) for key, own in section.items()})


def build_autoencoder(config: ConfigDict) -> BinaryAutoencoder:
    """The autoencoder's network, for the images of the data section."""
    section = dict(config.autoencoder)
    section["dtype"] = dtype_of("autoencoder", section["dtype"])
    images = {"resolution": config.data.resolution, "image_channels": config.data.channels}
    return build_section("autoencoder", BinaryAutoencoder, section, **images)


def build_denoiser(config: ConfigDict, code_shape: tuple[int, int, int], conditioning: Conditioning) -> nn.Module:
    """The prior's network, for codes of a shape and the conditions that come with them.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.prior)
    architecture, section["dtype"] = section.pop("architecture"), dtype_of("prior", section["dtype"])
    if architecture == "transformer":
        return build_section("prior", Denoiser, section, code_shape=tuple(code_shape), conditioning=conditioning)
    if architecture == "official":
        from binlatent.nets.official_denoiser import OfficialDenoiser

        # an imported model says itself what it is conditioned on
        section |= _official_conditioning(conditioning) if conditioning else {}
        return build_section("prior", OfficialDenoiser, section, code_shape=tuple(code_shape))
    raise UserError(f"config.prior.architecture is {architecture!r}: 'transformer' or 'official' is expected")


def _official_conditioning(conditioning: Conditioning) -> dict[str, Any]:
    """The official denoiser's own fields of a conditioning, of which it takes one part."""
    widths = [conditioning.vector_width, conditioning.token_width]
    if conditioning.vocabulary or sum(bool(n) for n in (conditioning.num_classes, *widths)) > 1:
        raise UserError(
            "config.prior.architecture 'official' is conditioned on classes, vectors or text features, one of them; these "
            f"data have {conditioning}: set text.use='pooled' or data.labels=False, or take the architecture 'transformer'"
        )
    if conditioning.guidance:
        raise UserError(
            "config.prior.architecture 'official' has no input for guidance, which a student needs: set student.guidance=0"
        )
    cross = bool(conditioning.token_width)
    return {"num_classes": conditioning.num_classes, "condition_width": max(widths), "cross_attention": cross}


def build_objective(config: ConfigDict) -> Objective:
    section = {k: v for k, v in config.prior_objective.items() if k != "label_dropout"}
    try:
        section["schedule"] = schedule(str(section["schedule"]))
    except ValueError as error:
        raise UserError(f"config section 'prior_objective': {error}") from error
    return build_section("prior_objective", Objective, section)
