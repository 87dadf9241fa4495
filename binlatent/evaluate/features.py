"""Feature networks, whose outputs the scores compare, and the names under which these scores are reported."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import flax.struct
import numpy as np
from etils import epath

from binlatent.checkpoint import checkpoint_steps, fingerprint, load_ema
from binlatent.errors import UserError
from binlatent.files import run_python
from binlatent.nets import weights
from binlatent.nets.classifier import FeatureClassifier
from binlatent.nets.inception import Resize, inception_features
from binlatent.typing import Array, Float, Images, PyTree


@flax.struct.dataclass
class Features:
    """Features of a batch of images: `pool` for all scores; `spatial`, or None, for sFID; `logits`, or None, for the
    Inception Score."""

    pool: Float[Array | np.ndarray, "b f"]
    spatial: Float[Array | np.ndarray, "b s"] | None = None
    logits: Float[Array | np.ndarray, "b classes"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FeatureNetwork:
    """A feature network, and the name under which its scores are reported.

    Attributes:
      name: `inception` (or `inception-pytorch-fid`, by the resize), `classifier` or `user:<file name>`.
      fingerprint: changes with the weights or the code.
      preprocessing: a description of how images are preprocessed.
      params: its weights.
      function: (params, images (b, h, w, c) float in [0, 1]) → Features.
      label_logits: whether `logits` are over the data set's own labels, so that accuracy is defined.
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
        """How references and scores identify the network."""
        return {"name": self.name, "fingerprint": self.fingerprint, "preprocessing": self.preprocessing}

    def title(self, score: str) -> str:
        """The name under which a score of these features is reported: "FID" only with Inception features.

        Raises:
          KeyError: an unknown score.
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
      resize: `tf1` (as the original, torch-fidelity and ADM) or `pytorch-fid`.
      params: its weights; None: those in the user's cache.

    Raises:
      UserError: there are no weights on this machine; the message says how to get them.
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
    """The classifier that `binlatent train-classifier` trained on this data set. Its scores only compare runs on the same
    data."""

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
    """A Python file that defines `features(images)`: (b, h, w, c) float in [0, 1] → (b, f), traceable by JAX. It may also
    define `logits(images)` → (b, classes), and `fingerprint`, a string that identifies its weights; by default only the
    file itself is hashed.

    Raises:
      UserError: the file does not exist, raises an exception, or does not define `features`.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(
            f"no feature network {path}: give 'inception', 'classifier' or a .py file with features(images)"
        )
    module = run_python(file, f"{path} does not run", lambda module: module)
    if not callable(getattr(module, "features", None)):
        raise UserError(f"{path} defines no function features(images)")
    logits = getattr(module, "logits", None)

    def function(params, images):
        del params  # the file has its own
        pool = module.features(images)
        if pool.ndim != 2 or pool.shape[0] != images.shape[0]:
            raise UserError(f"{path}: features has shape {pool.shape} for {images.shape[0]} images; (b, f) is expected")
        return Features(pool=pool, logits=logits(images) if logits else None)

    digest = hashlib.sha256(file.read_bytes() + str(getattr(module, "fingerprint", "")).encode()).hexdigest()[:16]
    return FeatureNetwork(
        name=f"user:{file.name}", fingerprint=digest, preprocessing="rounded to uint8", params={}, function=function
    )


def network_of(workdir: epath.Path, name: str) -> FeatureNetwork:
    """A feature network by name: `inception`, `inception-pytorch-fid`, a work directory's `classifier`, or a .py file.

    Raises:
      UserError: there is no such network, or it lacks its weights.
    """
    if name == "inception":
        return inception_network()
    if name == "inception-pytorch-fid":
        return inception_network("pytorch-fid")
    if name == "classifier":
        folder = workdir / "classifier" / "checkpoints"
        if not checkpoint_steps(folder):
            raise UserError(f"no classifier in {workdir}: `binlatent train-classifier` trains one")
        _, params, metadata = load_ema(folder)
        return classifier_network(FeatureClassifier(num_classes=metadata["num_classes"]), params["classifier"])
    return user_network(name)
