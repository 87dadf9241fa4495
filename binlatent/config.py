"""From a configuration to the objects that it names.

A configuration is an `ml_collections.ConfigDict` with one section for each dataclass or module below; `defaults` declares
every key from their own fields, so that a key has its meaning and its default in one place. An unknown key is an error
wherever it is set: in a config file, on the command line, or in a work directory.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict, config_dict

from binlatent.data.options import DataOptions
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.schedule import schedule
from binlatent.errors import UserError
from binlatent.mesh import MeshShape
from binlatent.nets import weights
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.nets.denoiser import Denoiser
from binlatent.nets.official_discriminator import PatchDiscriminator
from binlatent.nets.patchgan import PatchGAN
from binlatent.sampling.options import SamplingOptions
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import TERMS, AutoencoderStage
from binlatent.train.discriminator import Critic
from binlatent.train.loop import Training
from binlatent.train.optimizer import Optimizer
from binlatent.train.perceptual import LOSSES
from binlatent.train.prior import PriorStage
from binlatent.train.terms import Term

# Terms of the autoencoder's loss that a config may weigh, and the weights they have unless it does. The entropies make
# bits sure and all of them used: sharper pictures, and codes that take the prior fewer bits (docs/ablation.md).
LOSS_TERMS = dict.fromkeys(TERMS, 0.0) | {"l1": 1.0, "sample_entropy": 0.02, "unused_entropy": 0.02}
DISCRIMINATORS = {"patchgan": PatchGAN, "released": PatchDiscriminator}


def _fields(cls, *without: str, **values) -> ConfigDict:
    """The fields of a dataclass or module with their defaults; a field without one must be set by the config."""
    section = ConfigDict(type_safe=True)
    without += ("parent", "name") if issubclass(cls, nn.Module) else ()
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
    config.prior = _fields(Denoiser, "code_shape", "num_classes", "condition_width", "condition_tokens")
    config.prior.architecture = "transformer"
    config.prior_objective = _fields(Objective, "schedule")
    config.prior_objective.schedule = "linear"
    config.prior_objective.label_dropout = 0.1
    config.prior_optimizer = _fields(Optimizer)
    config.prior_training = _fields(Training)
    config.sampling = _fields(SamplingOptions)
    return config.lock()


def shipped() -> dict[str, Path]:
    """The configs that come with the project, by name."""
    package = Path(__file__).parent
    folder = next(f for f in (package / "configs", package.parent / "configs") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def load(config: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """A config by path, by a shipped name, or of another work directory, with overrides `section.key=value`.

    `name:argument` gives the argument to its `get_config`, as `image_folder:128`.

    Raises:
      UserError: there is no such config, it has no `get_config`, or a key or value does not fit.
    """
    name, _, argument = config.partition(":")
    path = Path(name) if name.endswith(".py") else shipped().get(name)
    if path is None and (kept := epath.Path(config) / "config.json").exists():
        return override(read(kept), overrides)
    if path is None or not path.is_file():
        raise UserError(
            f"no config {name!r}: give a path to a .py file, a work directory, or one of {', '.join(shipped())}"
        )
    spec = importlib.util.spec_from_file_location(f"binlatent_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        loaded = module.get_config(argument) if argument else module.get_config()
    except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, NameError, ImportError) as error:
        raise UserError(f"config {path}: {error}") from error
    return override(loaded, overrides)


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """The config with `section.key=value` replaced; values are Python literals, anything else is a string.

    Raises:
      UserError: no such key (the nearest ones are named), or a value of another type.
    """
    config = config.copy_and_resolve_references()
    for item in overrides:
        key, separator, text = item.partition("=")
        known = list(_flatten(config))
        if not separator:
            raise UserError(f"--config.{item} has no value: write --config.{key}=VALUE")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            raise UserError(f"no config key {key!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False}.get(text.lower(), text)
        section, _, name = key.rpartition(".")
        target = config
        for part in filter(None, section.split(".")):
            target = target[part]
        kind = type(target[name])  # of None: nothing is known, and what is built from it checks the value
        if kind is str and not isinstance(value, str):
            value = text
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 1e5 steps
        try:
            target[name] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise UserError(
                f"--config.{key}={text}: a {kind.__name__} is expected, got {type(value).__name__}"
            ) from error
    return config


def _flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {f"{prefix}{name}": value}
    return flat


def to_json(config: ConfigDict) -> dict[str, Any]:
    """A config as plain JSON."""
    return json.loads(config.to_json())


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`: lists become tuples."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return tuple(plain(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(plain(values)).lock()


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """A JSON config with the keys that came after it was written, at their defaults: they leave a run as it was."""

    def merge(default, value):
        sections = isinstance(default, dict) and isinstance(value, dict)
        if not sections or default.get("architecture") != value.get("architecture"):  # another network has other keys
            return value
        return {k: merge(default.get(k), value[k]) if k in value else default[k] for k in default | value}

    return merge(to_json(defaults()), values)


def read(path: epath.PathLike) -> ConfigDict:
    """The config of a work directory's `config.json`."""
    return from_json(complete(json.loads(epath.Path(path).read_text())))


def _build(section: str, make, config: Mapping[str, Any] | ConfigDict, **derived):
    """Splats a section into what it configures; a wrong key or value names the section."""
    values = derived | dict(config)
    required = (f.name for f in dataclasses.fields(make) if f.default is dataclasses.MISSING)
    if missing := [name for name in required if values.get(name) is None]:
        raise UserError(f"config section {section!r} does not set {', '.join(missing)}")
    try:
        return make(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"config section {section!r}: {error}") from error


def check(config: ConfigDict) -> None:
    """Builds everything that can be built without data, so that a wrong value is found before anything is trained.

    Raises:
      UserError: it names the section, the key or value, and what was expected.
    """
    if unknown := set(config) - set(defaults()):
        raise UserError(f"no config section {', '.join(sorted(unknown))}; there are {', '.join(defaults())}")
    build_data(config), build_mesh(config), build_sampling(config), build_autoencoder_stage(config)
    build_prior_stage(config, build_autoencoder(config).code_shape, 0, ())


def build_data(config: ConfigDict) -> DataOptions:
    return _build("data", DataOptions, config.data)


def build_mesh(config: ConfigDict):
    shape = _build("mesh", MeshShape, config.mesh)
    try:
        return shape.build()
    except ValueError as error:
        raise UserError(f"{error}; set --config.mesh.data, .fsdp and .tensor") from error


def build_sampling(config: ConfigDict) -> SamplingOptions:
    return _build("sampling", SamplingOptions, config.sampling)


def build_training(config: ConfigDict, stage: str) -> Training:
    return _build(f"{stage}_training", Training, config[f"{stage}_training"])


def build_autoencoder(config: ConfigDict) -> BinaryAutoencoder:
    """The autoencoder's network, for the images of the data section."""
    section = dict(config.autoencoder)
    section["dtype"] = jnp.dtype(section["dtype"])
    images = {"resolution": config.data.resolution, "image_channels": config.data.channels}
    return _build("autoencoder", BinaryAutoencoder, section, **images)


def build_denoiser(
    config: ConfigDict, code_shape: tuple[int, int, int], num_classes: int, condition_shape: tuple[int, ...]
) -> nn.Module:
    """The prior's network, for codes of a shape and the conditions that come with them.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.prior)
    architecture, section["dtype"] = section.pop("architecture"), jnp.dtype(section["dtype"])
    if architecture == "transformer":
        tokens, width = (0, *condition_shape)[-2:] if condition_shape else (0, 0)
        derived = {"num_classes": num_classes, "condition_width": width, "condition_tokens": tokens}
        return _build("prior", Denoiser, section, code_shape=tuple(code_shape), **derived)
    if architecture == "released":
        from binlatent.nets.official_denoiser import ReleasedDenoiser

        return _build("prior", ReleasedDenoiser, section, code_shape=tuple(code_shape))
    raise UserError(f"config.prior.architecture is {architecture!r}: 'transformer' or 'released' is expected")


def build_objective(config: ConfigDict) -> Objective:
    section = {k: v for k, v in config.prior_objective.items() if k != "label_dropout"}
    try:
        section["schedule"] = schedule(section["schedule"])
    except ValueError as error:
        raise UserError(f"config section 'prior_objective': {error}") from error
    return _build("prior_objective", Objective, section)


def build_critic(config: ConfigDict) -> Critic:
    """The discriminator and its training.

    Raises:
      UserError: an unknown architecture or key.
    """
    section = dict(config.discriminator)
    architecture, section["dtype"] = section.pop("architecture"), jnp.dtype(section["dtype"])
    if architecture not in DISCRIMINATORS:
        raise UserError(f"config.discriminator.architecture is {architecture!r}: one of {', '.join(DISCRIMINATORS)}")
    if architecture == "released":
        del section["norm"]  # it has BatchNorm
    return Critic(
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
            critic=build_critic(config) if "adversarial" in enabled else None,
            frozen={name: frozen[name] if frozen else weights.load(name) for name in LOSSES if name in enabled},
        )
    except ValueError as error:
        raise UserError(f"config section 'autoencoder_loss': {error}") from error


def build_prior_stage(
    config: ConfigDict, code_shape: tuple[int, int, int], num_classes: int, condition_shape: tuple[int, ...]
) -> PriorStage:
    training = build_training(config, "prior")
    return PriorStage(
        net=build_denoiser(config, code_shape, num_classes, condition_shape),
        code_shape=tuple(code_shape),
        condition="condition" if condition_shape else "label" if num_classes else None,
        objective=build_objective(config),
        label_dropout=config.prior_objective.label_dropout,
        optimizer=_build("prior_optimizer", Optimizer, config.prior_optimizer),
        num_steps=training.num_steps,
        micro_batches=training.micro_batches,
    )
