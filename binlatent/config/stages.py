"""From a config to its training stages, with their networks, losses and optimizers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent.config.build import (
    build_autoencoder,
    build_codes,
    build_data,
    build_decoder_options,
    build_denoiser,
    build_mesh,
    build_objective,
    build_plan,
    build_sampling,
    build_section,
    build_student_options,
    build_text,
    build_training,
    defaults,
    dtype_of,
    stage_section,
)
from binlatent.config.values import fits
from binlatent.data.loader import fitting_batch_size
from binlatent.errors import UserError
from binlatent.mesh import batch_divisor
from binlatent.nets import weights
from binlatent.nets.condition import Conditioning
from binlatent.nets.official_discriminator import PatchDiscriminator
from binlatent.nets.patchgan import PatchGAN
from binlatent.prng import check_seed
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import AutoencoderStage
from binlatent.train.decoder import DecoderStage
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import Training
from binlatent.train.perceptual import LOSSES
from binlatent.train.prior import PriorStage
from binlatent.train.student import StudentStage
from binlatent.train.terms import Term
from binlatent.typing import PyTree

ImageStage = TypeVar("ImageStage", bound=AutoencoderStage)

DISCRIMINATORS = {"patchgan": PatchGAN, "official": PatchDiscriminator}


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
    build_data(config), build_plan(config), build_mesh(config), build_sampling(config), build_text(config)
    build_autoencoder_stage(config), build_decoder_stage(config, {})
    build_prior_stage(config, build_autoencoder(config).code_shape, Conditioning())
    build_student_stage(config, build_autoencoder(config).code_shape, Conditioning(), {})


def build_discriminator(config: ConfigDict) -> DiscriminatorTraining:
    """The discriminator and its training.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.discriminator)
    architecture, section["dtype"] = section.pop("architecture"), dtype_of("discriminator", section["dtype"])
    if str(architecture) not in DISCRIMINATORS:
        raise UserError(f"config.discriminator.architecture is {architecture!r}: one of {', '.join(DISCRIMINATORS)}")
    if architecture == "official":
        del section["norm"]  # it has BatchNorm
    return DiscriminatorTraining(
        net=build_section("discriminator", DISCRIMINATORS[architecture], section),
        adversarial=build_section("discriminator_loss", Adversarial, config.discriminator_loss),
        augmentation=build_section("discriminator_augmentation", Augmentation, config.discriminator_augmentation),
        optimizer=build_section("discriminator_optimizer", Optimizer, config.discriminator_optimizer),
    )


def build_autoencoder_stage(config: ConfigDict, frozen: Mapping[str, Any] | None = None) -> AutoencoderStage:
    """Stage 1, with the weights of the perceptual networks that its loss asks for.

    Args:
      frozen: those weights by name, or their shapes; None reads them from this machine's cache.

    Raises:
      UserError: a wrong key or value, or such weights that this machine does not have yet.
    """
    return _image_stage(AutoencoderStage, config, frozen)


def build_decoder_stage(config: ConfigDict, encoder: PyTree) -> DecoderStage:
    """Decoder fine-tuning.

    Args:
      encoder: the trained autoencoder's parameters without the decoder's.

    Raises:
      UserError: as `build_autoencoder_stage`.
    """
    drawn = build_codes(config).views > 1
    stage = _image_stage(DecoderStage, config, None, drawn=drawn, flip_rate=build_decoder_options(config).flip_rate)
    return dataclasses.replace(stage, frozen=stage.frozen | {"encoder": encoder})


def _image_stage(make: type[ImageStage], config: ConfigDict, frozen: Mapping[str, Any] | None, **options) -> ImageStage:
    name = make.network
    terms = tuple(
        build_section(f"{name}_loss.{term}", Term, {k: v for k, v in section.items() if v is not None}, name=term)
        for term, section in stage_section(config, name, "loss").items()
    )
    enabled, training = {term.name for term in terms if term.enabled}, build_training(config, name)
    try:
        return make(
            net=build_autoencoder(config),
            terms=terms,
            optimizer=build_section(f"{name}_optimizer", Optimizer, stage_section(config, name, "optimizer")),
            num_steps=training.num_steps,
            micro_batches=training.micro_batches,
            discriminator=build_discriminator(config) if "adversarial" in enabled else None,
            frozen={loss: frozen[loss] if frozen else weights.load(loss) for loss in LOSSES if loss in enabled},
            **options,
        )
    except ValueError as error:
        raise UserError(f"config section '{name}_loss': {error}") from error


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
        optimizer=build_section("prior_optimizer", Optimizer, config.prior_optimizer),
        num_steps=training.num_steps,
        micro_batches=training.micro_batches,
    )


def build_student_stage(
    config: ConfigDict, code_shape: tuple[int, int, int], conditioning: Conditioning, teacher: PyTree
) -> StudentStage:
    """A student of the prior.

    Args:
      conditioning: of the prior.
      teacher: the prior's parameters.

    Raises:
      UserError: a wrong key or value, or guidance of a prior whose architecture cannot have it as an input.
    """
    options, training = build_student_options(config), build_training(config, "student")
    conditioning = student_conditioning(conditioning, options.guidance)
    return StudentStage(
        net=build_denoiser(config, code_shape, conditioning),
        code_shape=tuple(code_shape),
        objective=build_objective(config),
        steps=options.steps,
        guidance=options.guidance if conditioning.guidance else 0.0,
        anchor=options.anchor,
        optimizer=build_section("student_optimizer", Optimizer, config.student_optimizer),
        auxiliary_optimizer=build_section("auxiliary_optimizer", Optimizer, config.auxiliary_optimizer),
        num_steps=training.num_steps,
        micro_batches=training.micro_batches,
        frozen={"teacher": teacher},
    )


def student_conditioning(conditioning: Conditioning, guidance: float) -> Conditioning:
    """What a student is conditioned on: as its prior, and on the guidance weight where there is a condition and a weight."""
    return dataclasses.replace(conditioning, guidance=bool(conditioning and guidance))


def build_fitting_training(config: ConfigDict, stage: str, num_examples: int, mesh: Mesh) -> Training:
    """The options of a stage, with a batch size that fits the training examples where there are few of them.

    Raises:
      UserError: no batch size fits.
    """
    training = build_training(config, stage)
    try:
        size = fitting_batch_size(
            num_examples, training.batch_size, divisor=batch_divisor(mesh, training.micro_batches)
        )
    except ValueError as error:
        raise UserError(
            f"{stage}_training.batch_size is {training.batch_size}: {error}. Batches are divided over the devices of "
            f"mesh.data and mesh.fsdp, and into {stage}_training.micro_batches = {training.micro_batches} parts: set "
            "one of these keys."
        ) from error
    return dataclasses.replace(training, batch_size=size)
