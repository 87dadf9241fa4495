"""Pretrained feature networks: published files → our parameter trees, stored in the user's cache.

`FEATURES` lists the networks of `binlatent convert-features NAME`. Files are downloaded once and checked against their
checksum, or given as local paths; reading them does not need PyTorch.
"""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from einops import rearrange

from binlatent.convert.torch_file import read_torch_file
from binlatent.errors import UserError
from binlatent.files import atomic, cache_directory
from binlatent.nets import inception, resnet, vgg, weights
from binlatent.typing import PyTree

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A published file: its name, its address, and the first digits of its SHA-256 (torchvision's file names have 8)."""

    name: str
    url: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature network: its files, and the function that converts their state dicts, in this order."""

    files: tuple[SourceFile, ...]
    convert: Callable[..., PyTree]


def vgg16_params(state: State) -> PyTree:
    """The parameters of `nets.vgg.VGG16` from torchvision's `vgg16` state dict, without its classifier.

    Raises:
      ValueError: a tensor is missing, unknown or of the wrong shape.
    """
    reader = _Reader(state, ignored=("classifier.",))
    params, index, channels_in = {}, 0, 3
    for stage, (channels, convolutions) in enumerate(vgg.STAGES, start=1):
        for conv in range(1, convolutions + 1):
            params[f"conv{stage}_{conv}"] = {
                "kernel": reader.kernel(f"features.{index}.weight", (channels, channels_in, 3, 3)),
                "bias": reader.take(f"features.{index}.bias", (channels,)),
            }
            index, channels_in = index + 2, channels  # a convolution and its ReLU
        index += 1  # the pooling between stages
    reader.finish()
    return params


def lpips_params(vgg_state: State, heads: State) -> PyTree:
    """The parameters of `nets.vgg.LPIPS` from torchvision's `vgg16` and the `lpips` package's `weights/v0.1/vgg.pth`.

    Raises:
      ValueError: a tensor is missing, unknown or of the wrong shape.
    """
    reader = _Reader(heads)
    params = {"vgg": vgg16_params(vgg_state)}
    for level, (channels, _) in enumerate(vgg.STAGES):
        params[f"lin{level}"] = reader.take(f"lin{level}.model.1.weight", (1, channels, 1, 1)).reshape(channels)
    reader.finish()
    return params


def resnet50_params(state: State) -> PyTree:
    """The parameters of `nets.resnet.ResNet50` from torchvision's `resnet50` state dict.

    Raises:
      ValueError: a tensor is missing, unknown or of the wrong shape.
    """
    reader = _Reader(state, ignored_suffix=".num_batches_tracked")

    def conv_norm(conv: str, norm: str, shape: tuple[int, ...]) -> tuple[PyTree, PyTree]:
        names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        statistics = {ours: reader.take(f"{norm}.{theirs}", shape[:1]) for ours, theirs in names.items()}
        return {"kernel": reader.kernel(f"{conv}.weight", shape)}, statistics

    params = {}
    params["conv1"], params["norm1"] = conv_norm("conv1", "bn1", (64, 3, 7, 7))
    channels_in = 64
    for stage, blocks in enumerate(resnet.BLOCKS, start=1):
        width = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            theirs, ours = f"layer{stage}.{block}", {}
            shapes = ((width, channels_in, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, shape in enumerate(shapes, start=1):
                ours[f"conv{i}"], ours[f"norm{i}"] = conv_norm(f"{theirs}.conv{i}", f"{theirs}.bn{i}", shape)
            if block == 0:
                ours["conv_shortcut"], ours["norm_shortcut"] = conv_norm(
                    f"{theirs}.downsample.0", f"{theirs}.downsample.1", (4 * width, channels_in, 1, 1)
                )
            params[f"layer{stage}_{block}"] = ours
            channels_in = 4 * width
    params["classifier"] = {
        "kernel": reader.take("fc.weight", (1000, channels_in)).T,
        "bias": reader.take("fc.bias", (1000,)),
    }
    reader.finish()
    return params


_VGG16 = SourceFile(
    name="vgg16-397923af.pth", url="https://download.pytorch.org/models/vgg16-397923af.pth", sha256="397923af"
)

FEATURES: Mapping[str, Feature] = {
    "lpips": Feature(
        files=(
            _VGG16,
            SourceFile(
                name="lpips-v0.1-vgg.pth",
                url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
                sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            ),
        ),
        convert=lpips_params,
    ),
    "resnet50": Feature(
        files=(
            SourceFile(
                name="resnet50-0676ba61.pth",
                url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
                sha256="0676ba61",
            ),
        ),
        convert=resnet50_params,
    ),
    "inception": Feature(
        files=(
            SourceFile(
                name="pt_inception-2015-12-05-6726825d.pth",
                url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
                sha256="6726825d",
            ),
        ),
        convert=inception.inception_from_torch,
    ),
}


def convert_features(name: str, paths: Sequence[str | os.PathLike] = ()) -> pathlib.Path:
    """Converts the feature network `name` and stores it in the user's cache; returns the path of the converted file.

    Args:
      name: a key of `FEATURES`.
      paths: local copies of its files, in their order; if empty, missing files are downloaded to the cache.

    Raises:
      UserError: the name is unknown, the number of paths is wrong, a checksum differs, or a download fails.
    """
    if name not in FEATURES:
        raise UserError(f"no feature network {name!r}; there are {', '.join(sorted(FEATURES))}")
    feature = FEATURES[name]
    expected = ", ".join(file.name for file in feature.files)
    if paths and len(paths) != len(feature.files):
        raise UserError(
            f"{name!r} needs {len(feature.files)} files ({expected}), got {len(paths)} paths; give them in this order"
        )
    local = [pathlib.Path(path) for path in paths] or [_fetch(file) for file in feature.files]
    for path, file in zip(local, feature.files, strict=True):
        _check(path, file)
    try:
        params = feature.convert(*(read_torch_file(path) for path in local))
    except ValueError as error:
        raise UserError(f"{', '.join(str(path) for path in local)}: {error}") from error
    return weights.save(name, params)


def _fetch(file: SourceFile) -> pathlib.Path:
    """The file's path in the cache; downloads it if it is missing."""
    path = cache_directory() / "downloads" / file.name
    if path.exists():
        return path
    try:
        with atomic(path) as partial:
            with urllib.request.urlopen(file.url, timeout=60) as response, open(partial, "wb") as out:
                shutil.copyfileobj(response, out)
            _check(pathlib.Path(partial), file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"could not download {file.url} ({error}); download it on a machine with a network and put it at {path}, "
            "or pass its path"
        ) from error
    return path


def _check(path: pathlib.Path, file: SourceFile) -> None:
    if not path.is_file():
        raise UserError(f"no file {path}; expected a copy of {file.name} ({file.url})")
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(file.sha256):
        raise UserError(
            f"{path} is not {file.name}: its SHA-256 is {digest}, expected {file.sha256}…; "
            f"delete it and download {file.url}"
        )


class _Reader:
    """A state dict of which every tensor must be used once, with the expected shape, or be ignored by name."""

    def __init__(self, state: State, *, ignored: tuple[str, ...] = (), ignored_suffix: str | None = None):
        self._unused = {
            key: value
            for key, value in state.items()
            if not key.startswith(ignored) and not (ignored_suffix and key.endswith(ignored_suffix))
        }

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in self._unused:
            raise ValueError(f"the file has no tensor {key!r}; is it the published one?")
        value = np.asarray(self._unused.pop(key), np.float32)
        if value.shape != shape:
            raise ValueError(
                f"tensor {key!r} has shape {value.shape}, expected {shape}; is the file the published one?"
            )
        return value

    def kernel(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """A convolution's kernel, (out, in, h, w) → (h, w, in, out)."""
        return rearrange(self.take(key, shape), "o i h w -> h w i o")

    def finish(self) -> None:
        if self._unused:
            raise ValueError(f"the file has tensors that the network does not have: {sorted(self._unused)}")
