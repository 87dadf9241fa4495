"""Feature networks: what turns images into the numbers that scores compare, with the name a score must carry."""

import dataclasses
import hashlib
import importlib.util
import pathlib
from collections.abc import Callable

import flax.struct
import numpy as np

from binlatent.checkpoint import fingerprint
from binlatent.errors import UserError
from binlatent.nets import weights
from binlatent.nets.classifier import FeatureClassifier
from binlatent.nets.inception import Resize, inception_features
from binlatent.typing import Array, Float, Images, PyTree


@flax.struct.dataclass
class Features:
    """Of a batch of images: `pool` for every score, `spatial` for sFID, `logits` for the Inception Score; or None."""

    pool: Float[Array | np.ndarray, "b f"]
    spatial: Float[Array | np.ndarray, "b s"] | None = None
    logits: Float[Array | np.ndarray, "b classes"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FeatureNetwork:
    """A network with the name that its scores are reported under.

    Attributes:
      name: `inception` (or `inception-pytorch-fid`, by the resize), `classifier` or `user:<file name>`.
      fingerprint: changes with the weights or the code.
      preprocessing: what is done to images before the network, in words.
      params: its weights.
      function: (params, images (b, h, w, c) float in [0, 1]) → Features.
      label_logits: whether `logits` are over the labels of the data at hand, so that accuracy has a meaning.
    """

    name: str
    fingerprint: str
    preprocessing: str
    params: PyTree
    function: Callable[[PyTree, Array], Features]
    label_logits: bool = False

    def __call__(self, images: Images) -> Features:
        return self.function(self.params, images)

    @property
    def description(self) -> dict[str, str]:
        """What a reference and a score say of it."""
        return {"name": self.name, "fingerprint": self.fingerprint, "preprocessing": self.preprocessing}

    def title(self, score: str) -> str:
        """The name under which a score of these features is reported: never "FID" unless it is one.

        Raises:
          KeyError: for a score that is not of features.
        """
        official = {
            "frechet_distance": "FID",
            "spatial_frechet_distance": "sFID",
            "kernel_distance": "KID",
            "inception_score": "Inception Score",
            "precision": "precision",
            "recall": "recall",
            "density": "density",
            "coverage": "coverage",
            "accuracy": "accuracy",
            "reconstruction_frechet_distance": "rFID",
        }[score]
        if self.name.startswith("inception"):
            return official
        plain = {
            "FID": "Fréchet distance", "sFID": "spatial Fréchet distance", "KID": "kernel distance",
            "Inception Score": "class score", "rFID": "Fréchet distance of reconstructions",
        }.get(official, official)  # fmt: skip
        return f"{plain} ({self.name} features)"


def inception_network(resize: Resize = "tf1", params: PyTree | None = None) -> FeatureNetwork:
    """The FID Inception.

    Args:
      resize: `tf1` (the original, torch-fidelity's and ADM's) or `pytorch-fid`.
      params: its weights; without them the ones in the user's cache.

    Raises:
      UserError: where there are no weights on this machine; it says how to get them.
    """
    if params is None:
        params = weights.load("inception")

    def function(params, images):
        out = inception_features(params, images, resize=resize)
        return Features(pool=out.pool, spatial=out.spatial, logits=out.logits)

    return FeatureNetwork(
        name="inception" if resize == "tf1" else f"inception-{resize}",
        fingerprint=fingerprint(params),
        preprocessing=f"rounded to uint8, resized to 299×299 as {resize} does",
        params=params,
        function=function,
    )


def classifier_network(net: FeatureClassifier, params: PyTree) -> FeatureNetwork:
    """The classifier that `binlatent train-classifier` trained on the data at hand. Its scores compare runs on that data
    and nothing else."""

    def function(params, images):
        out = net.apply({"params": params}, images)
        return Features(pool=out.features, logits=out.logits)

    return FeatureNetwork(
        name="classifier",
        fingerprint=fingerprint(params),
        preprocessing="rounded to uint8",
        params=params,
        function=function,
        label_logits=True,
    )


def user_network(path: str) -> FeatureNetwork:
    """A network given as a Python file that defines `features(images)`: (b, h, w, c) float in [0, 1] → (b, f), traceable
    by JAX. It may define `logits(images)` → (b, classes) as well, and `fingerprint` (a string) to name its weights: else
    the fingerprint is that of the file alone.

    Raises:
      UserError: there is no such file, it does not run, or it defines no `features`.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(
            f"no feature network at {path}: give 'inception', 'classifier' or a .py file with features(images)"
        )
    spec = importlib.util.spec_from_file_location(f"binlatent_features_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything may go wrong in another person's file
        raise UserError(f"{path} does not run: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "features", None)):
        raise UserError(f"{path} defines no function features(images)")
    logits = getattr(module, "logits", None)

    def function(params, images):
        del params  # the file keeps its own
        pool = module.features(images)
        if pool.ndim != 2 or pool.shape[0] != images.shape[0]:
            raise UserError(f"{path}: features has shape {pool.shape} for {images.shape[0]} images; (b, f) is expected")
        return Features(pool=pool, logits=logits(images) if logits else None)

    digest = hashlib.sha256(file.read_bytes() + str(getattr(module, "fingerprint", "")).encode()).hexdigest()[:16]
    return FeatureNetwork(
        name=f"user:{file.name}", fingerprint=digest, preprocessing="rounded to uint8", params={}, function=function
    )
