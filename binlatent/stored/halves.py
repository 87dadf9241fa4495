"""From a work directory or a pack to the two trained networks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from etils import epath
from jax.sharding import Sharding
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent.checkpoint import checkpoint_steps, fingerprint, load_ema
from binlatent.errors import UserError
from binlatent.files import user_path
from binlatent.sampling.conditions import conditioning
from binlatent.stored.pack import Pack, is_pack, read_pack
from binlatent.train.state import Trained
from binlatent.typing import PyTree

HALVES = ("autoencoder", "prior")
# of each stage, the network that is used after training
NETWORKS = {"autoencoder": "autoencoder", "prior": "denoiser", "decoder": "decoder", "student": "denoiser"}

# stage → its network's EMA parameters, step and checkpoint's metadata; None where it is not trained
ReadStage = Callable[[str], tuple[PyTree, int, dict[str, Any]] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halves:
    """The config of a trained model and its networks, at least one of them.

    Where the decoder was trained on (`train.decoder`), the autoencoder has that decoder, and its metadata an entry
    `decoder`: its `step`, and the fingerprint of the `autoencoder` that it continues, by which codes know it. Where the prior
    is a student (`train.student`), its metadata has an entry `student`: its `steps` and its largest `guidance`.
    """

    config: ConfigDict
    autoencoder: Trained | None
    prior: Trained | None


def open_halves(path: epath.PathLike, sharding: Sharding, *, student: bool = False) -> Halves:
    """Opens a work directory with the latest checkpoints that restore, or a pack.

    Args:
      path: a folder or a file, local or remote, see `read_pack`.
      sharding: where to put the parameters.
      student: take the prior's student in place of the prior. A file has one of them, which is then expected to be a student.

    Raises:
      UserError: it is neither, is of another version, holds no trained stage or no student, or holds halves or a config that
        do not belong together.
    """
    config, read = _packed(path, sharding) if is_pack(path) else _workdir(path, sharding)

    def half(stage: str, build: Callable[[dict], nn.Module]) -> Trained | None:
        found = read(stage)
        if found is None:
            return None
        params, step, metadata = found
        config_lib.check_network(config, metadata["config"], stage, epath.Path(path))
        return Trained(net=build(metadata), params=params, step=step, metadata=metadata)

    def denoiser(metadata: dict) -> nn.Module:
        wanted = conditioning(metadata)
        if made := metadata.get("student"):
            wanted = config_lib.student_conditioning(wanted, made["guidance"])
        return config_lib.build_denoiser(config, tuple(metadata["code_shape"]), wanted)

    autoencoder = half("autoencoder", lambda _: config_lib.build_autoencoder(config))
    prior = half("prior", denoiser)
    if autoencoder is None and prior is None:
        raise UserError(f"{path} holds no trained stage yet: `binlatent run --workdir {path}` trains both")
    if autoencoder and (found := read("decoder")):
        autoencoder = with_decoder(autoencoder, *found, path)
    if autoencoder and prior and prior.metadata["autoencoder"] not in ("", codes_fingerprint(autoencoder)):
        raise UserError(
            f"{path}: the prior was trained on codes of autoencoder {prior.metadata['autoencoder']}, but the "
            f"autoencoder here is {codes_fingerprint(autoencoder)}. Encode and train the prior again."
        )
    if student and not (prior and prior.metadata.get("student")):
        taught = half("student", denoiser)
        if prior is None or taught is None:
            raise UserError(f"{path} has no student: `binlatent train --stage student` makes one of a trained prior")
        check_teacher(path, taught.metadata, fingerprint(prior.params))
        prior = taught
    return Halves(config=config, autoencoder=autoencoder, prior=prior)


def codes_fingerprint(autoencoder: Trained) -> str:
    """The fingerprint by which codes and priors refer to an autoencoder: that of stage 1, whatever its decoder."""
    return autoencoder.metadata.get("decoder", {}).get("autoencoder") or fingerprint(autoencoder.params)


def with_decoder(
    autoencoder: Trained, decoder: PyTree, step: int, metadata: dict[str, Any], path: epath.PathLike
) -> Trained:
    """An autoencoder with the decoder of a checkpoint of `train.decoder`.

    Raises:
      UserError: that decoder continues another autoencoder's.
    """
    check_decoder(path, metadata, own := fingerprint(autoencoder.params))
    trained_on = {"decoder": {"step": step, "autoencoder": own}}
    return dataclasses.replace(
        autoencoder, params=autoencoder.params | decoder, metadata=autoencoder.metadata | trained_on
    )


def check_decoder(path: epath.PathLike, metadata: dict[str, Any], autoencoder: str) -> None:
    """Raises UserError unless the decoder of a checkpoint continues that of the autoencoder with this fingerprint."""
    if metadata["autoencoder"] != autoencoder:
        raise UserError(
            f"{path}: the stage decoder continues autoencoder {metadata['autoencoder']}, but the autoencoder here is "
            f"{autoencoder}. Move the folder 'decoder' away, then train that stage again."
        )


def check_teacher(path: epath.PathLike, metadata: dict[str, Any], prior: str) -> None:
    """Raises UserError unless the student of a checkpoint was taught by the prior with this fingerprint."""
    if metadata["prior"] != prior:
        raise UserError(
            f"{path}: the student was taught by prior {metadata['prior']}, but the prior here is {prior}. Move the folder "
            "'student' away, then train that stage again."
        )


def _workdir(path: epath.PathLike, sharding: Sharding) -> tuple[ConfigDict, ReadStage]:
    folder = user_path(path)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} is no work directory: it has no config.json. `binlatent run` makes one.")

    def read(stage: str):
        checkpoints = folder / stage / "checkpoints"
        if not checkpoint_steps(checkpoints):
            return None
        step, params, metadata = load_ema(checkpoints, sharding)
        return params[NETWORKS[stage]], step, metadata

    return config_lib.read(folder / "config.json"), read


def _packed(path: epath.PathLike, sharding: Sharding) -> tuple[ConfigDict, ReadStage]:
    pack = read_pack(path)

    def read(stage: str):
        if stage not in pack.stages:
            return None
        found = pack.stages[stage]
        return jax.device_put(pack.params[stage], sharding), found["step"], found["metadata"]

    return config_lib.parse(pack.config, path), read


def pack_halves(halves: Halves) -> Pack:
    """A trained model as a pack."""
    trained = {stage: getattr(halves, stage) for stage in HALVES}
    trained = {stage: half for stage, half in trained.items() if half is not None}
    return Pack(
        config=config_lib.to_values(halves.config),
        params={stage: jax.device_get(half.params) for stage, half in trained.items()},
        stages={stage: {"step": half.step, "metadata": _metadata(half)} for stage, half in trained.items()},
    )


def _metadata(half: Trained) -> dict[str, Any]:
    """What a checkpoint says of itself, without the checksums of the train state."""
    return {key: value for key, value in half.metadata.items() if key != "checksums"}
