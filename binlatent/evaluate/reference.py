"""References: feature statistics of real images, read as the model reads them, that samples are compared with."""

import dataclasses
import hashlib
import json
from collections.abc import Callable

import numpy as np
from etils import epath
from jax.sharding import Mesh

from binlatent.data.loader import eval_batches
from binlatent.data.options import DataOptions
from binlatent.data.splits import Splits
from binlatent.data.spread import Spread
from binlatent.errors import UserError
from binlatent.evaluate.features import FeatureNetwork
from binlatent.evaluate.stream import FeatureStream, featurise, resumable
from binlatent.files import DAMAGED_NPZ

KEPT_FEATURES = 10_000  # for precision, recall, density, coverage and KID; the moments include all images


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Statistics of real images.

    description: JSON data that identify them: the images (a hash of their bytes after preprocessing), the split, the
    feature network and its weights. Its hash names the reference.
    """

    description: dict
    stream: FeatureStream

    @property
    def hash(self) -> str:
        """16 hex digits of data, preprocessing and feature weights, but not of the features, which differ by device."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]

    def save(self, path: epath.PathLike) -> None:
        self.stream.save(path, {"description": self.description, "hash": self.hash})

    @classmethod
    def load(cls, path: epath.PathLike) -> "Reference":
        """Reads what `save` wrote.

        Raises:
          UserError: the file is not a reference, or its description does not match its hash.
        """
        try:
            stream, metadata = FeatureStream.load(path)
            reference = cls(description=metadata["description"], stream=stream)
        except DAMAGED_NPZ as error:
            raise UserError(f"{path} is not a file of `binlatent reference`: {error}") from error
        if reference.hash != metadata["hash"]:
            raise UserError(f"{path} has been changed: its hash is {reference.hash}, but {metadata['hash']} is stored")
        return reference


def request(splits: Splits, network: FeatureNetwork, *, split: str, num: int | None) -> dict:
    """A reference's description before it is computed, without `content`, `images` and `shape`."""
    chosen = {} if num is None else {"chosen": "evenly"}
    return {"data": splits.fingerprint, "split": split, "num": num, "network": network.description} | chosen


def make_reference(
    splits: Splits,
    data: DataOptions,
    network: FeatureNetwork,
    *,
    split: str,
    num: int | None,
    mesh: Mesh,
    folder: epath.PathLike,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda count: None,
) -> Reference:
    """Computes the reference of a split, or reads it if `folder` already has it.

    Images go through the loader's evaluation transform, so the model's crop, resolution and channels apply, without
    augmentation.

    Args:
      num: use so many images, spread evenly over the split; None for all.

    Raises:
      UserError: the split cannot be read, or has fewer than two images.
    """
    requested = request(splits, network, split=split, num=num)
    key = hashlib.sha256(json.dumps(requested, sort_keys=True).encode()).hexdigest()[:16]
    path = epath.Path(folder) / f"reference-{key}.npz"
    if path.exists():
        return Reference.load(path)
    source = getattr(splits, split)
    source = source if num is None else Spread(source, num)
    stop = len(source)

    def begin(position):
        for batch in eval_batches(source, data, batch_size=batch_size, start=position, limit=stop - position):
            mask, position = batch["mask"], min(position + batch_size, stop)
            yield batch["image"][mask], batch["label"][mask] if "label" in batch else None, position

    run = featurise(network, mesh, batch_size)
    streams = resumable(
        begin, {network.name: run}, folder=epath.Path(folder) / key, settings=requested, total=None, limit=KEPT_FEATURES,
        progress=progress,
    )  # fmt: skip
    stream = streams[network.name]
    if stream.count < 2:
        raise UserError(f"{source!r} has {stream.count} readable images; a reference needs at least 2")
    shape = [data.resolution, data.resolution, data.channels]
    reference = Reference(
        description=requested | {"content": stream.content, "images": stream.count, "shape": shape}, stream=stream
    )
    reference.save(path)
    return reference


def sample_of(stream: FeatureStream, label: int | None = None) -> np.ndarray:
    """The stored features, of all images or of those with a label."""
    return stream.sample.features if label is None else stream.sample.features[stream.sample.labels == label]
