"""A pass of images through feature networks: its statistics, and how an interrupted one is resumed."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from binlatent.console import warn
from binlatent.evaluate.features import FeatureNetwork, Features
from binlatent.evaluate.statistics import ClassStatistics, FeatureSample, GaussianStatistics, ScoreError
from binlatent.files import DAMAGED_NPZ

SAVE_EVERY = 300.0  # seconds between saves of an unfinished pass
_BLOCK = 1024  # rows are added to the moments in blocks of at least this size


@functools.lru_cache(maxsize=8)  # a sweep calls it for every cell, and Inception is slow to compile
def featurise(network: FeatureNetwork, mesh: Mesh, batch_size: int) -> Callable[[np.ndarray], Features]:
    """A function from uint8 images (n, h, w, c), n ≤ `batch_size`, to Features as NumPy arrays. It is compiled for one
    shape; the batch is sharded over the mesh, the weights are replicated."""
    size = -(-batch_size // mesh.size) * mesh.size
    rows, replicated = NamedSharding(mesh, PartitionSpec(mesh.axis_names)), NamedSharding(mesh, PartitionSpec())
    params = jax.device_put(network.params, replicated)

    @jax.jit
    def compute(params, images):
        return network.function(params, images.astype(np.float32) / 255)

    def run(images: np.ndarray) -> Features:
        if images.dtype != np.uint8:
            raise ScoreError(f"feature networks read uint8 images here, not {images.dtype}")
        count = len(images)
        padded = np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)]) if count < size else images
        out = compute(params, jax.device_put(padded, rows))
        return jax.tree.map(lambda x: np.asarray(x)[:count], out)

    return run


class FeatureStream:
    """Statistics of a stream of images and their features, in bounded memory.

    Args:
      total: number of images in the stream, if known; the Inception Score needs it.
      limit: number of features to store, for the scores that compare single images.
      seed: selects which features are stored.
    """

    def __init__(self, *, total: int | None, limit: int, seed: int = 0):
        self.total, self.limit, self.seed = total, limit, seed
        self.count, self._content = 0, 0
        self._moments: dict[str, GaussianStatistics] = {}
        self._buffered: dict[str, list[np.ndarray]] = {}
        self.classes: ClassStatistics | None = None
        self.sample: FeatureSample | None = None
        self.hits: np.ndarray | None = (
            None  # (classes, 2): images of each class, and how many of them are classified correctly
        )

    @property
    def content(self) -> str:
        """A hash of the set of images, independent of their order and batching."""
        return f"{self._content:032x}"

    def add(self, images: np.ndarray, features: Features, labels: np.ndarray | None = None) -> None:
        """Adds the next images (n, h, w, c) uint8, with their features and labels.

        Raises:
          ScoreError: the features are not finite.
        """
        if self.sample is None:
            self.sample = FeatureSample.empty(features.pool.shape[1], self.limit, self.seed)
            if features.logits is not None and self.total is not None and self.total >= 10:
                self.classes = ClassStatistics.empty(self.total, features.logits.shape[1])
        for image in images:
            digest = hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=16).digest()
            self._content = (self._content + int.from_bytes(digest, "big")) % 2**128
        for name in ("pool", "spatial"):
            rows = getattr(features, name)
            if rows is not None:
                self._buffered.setdefault(name, []).append(np.asarray(rows, np.float64))
                if sum(map(len, self._buffered[name])) >= _BLOCK:
                    self._flush(name)
        self.sample = self.sample.add(features.pool, self.count, labels)
        if self.classes is not None:
            self.classes = self.classes.add(features.logits)
        if features.logits is not None and labels is not None:
            if self.hits is None:
                self.hits = np.zeros((features.logits.shape[1], 2), np.int64)
            known = (labels >= 0) & (labels < len(self.hits))
            np.add.at(self.hits, (labels[known], 0), 1)
            correct = known & (features.logits.argmax(1) == labels)
            np.add.at(self.hits, (labels[correct], 1), 1)
        self.count += len(images)

    def _flush(self, name: str) -> None:
        rows = self._buffered.pop(name, None)
        if rows:
            block = GaussianStatistics.of(np.concatenate(rows))
            self._moments[name] = self._moments[name].merge(block) if name in self._moments else block

    def moments(self, name: str) -> GaussianStatistics | None:
        """Statistics of `pool` or `spatial`; None if the network does not output it."""
        self._flush(name)
        return self._moments.get(name)

    def save(self, path: epath.PathLike, metadata: dict) -> None:
        """Writes one .npz atomically, with `metadata` (JSON data) beside the statistics."""
        arrays = {}
        for name in ("pool", "spatial"):
            if moments := self.moments(name):
                arrays |= {f"{name}/mean": moments.mean, f"{name}/scatter": moments.scatter}
        for name in ("index", "features", "labels"):
            arrays[f"sample/{name}"] = getattr(self.sample, name)
        if self.classes is not None:
            for name in ("counts", "shares", "negentropy"):
                arrays[f"classes/{name}"] = getattr(self.classes, name)
        if self.hits is not None:
            arrays["hits"] = self.hits
        meta = {
            "about": metadata, "total": self.total, "limit": self.limit, "seed": self.seed, "count": self.count,
            "content": self.content,
        }  # fmt: skip
        path = epath.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(file, meta=json.dumps(meta), **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: epath.PathLike) -> tuple["FeatureStream", dict]:
        """Returns (the stream, its metadata), as `save` wrote them."""
        with epath.Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            stream = cls(total=meta["total"], limit=meta["limit"], seed=meta["seed"])
            stream.count, stream._content = meta["count"], int(meta["content"], 16)
            for name in ("pool", "spatial"):
                if f"{name}/mean" in file:
                    stream._moments[name] = GaussianStatistics(
                        count=stream.count, mean=file[f"{name}/mean"], scatter=file[f"{name}/scatter"]
                    )
            parts = {name: file[f"sample/{name}"] for name in ("index", "features", "labels")}
            stream.sample = FeatureSample(limit=stream.limit, seed=stream.seed, **parts)
            if "classes/counts" in file:
                parts = {name: file[f"classes/{name}"] for name in ("counts", "shares", "negentropy")}
                stream.classes = ClassStatistics(total=stream.total, seen=stream.count, **parts)
            stream.hits = file.get("hits")
        return stream, meta["about"]


def resumable(
    begin: Callable[[int], Iterable[tuple[np.ndarray, np.ndarray | None, int]]],
    networks: dict[str, Callable[[np.ndarray], Features]],
    *,
    folder: epath.PathLike,
    settings: dict,
    total: int | None,
    limit: int,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, FeatureStream]:
    """One pass of images through several networks; an interrupted pass continues from where it was last saved.

    Args:
      begin: (position) → batches (images uint8, labels or None, next position) from there on, the same on every call.
      networks: name → `featurise(…)`.
      folder: where the unfinished pass is saved, every few minutes.
      settings: JSON data that identify the pass; a saved pass with other settings is ignored.
      total, limit: see `FeatureStream`.
      progress: called with the number of images that each step added.
    """
    folder = epath.Path(folder)
    paths = {name: folder / f"unfinished-{i}.npz" for i, name in enumerate(networks)}
    streams, positions = {}, set()
    for name, path in paths.items():
        if path.exists():
            try:
                stream, saved = FeatureStream.load(path)
            except DAMAGED_NPZ as error:
                warn(f"{path} cannot be read ({error}); the pass begins again")
                continue
            positions.add(saved.pop("position"))
            if saved == settings | {"network": name} and stream.limit == limit and stream.total == total:
                streams[name] = stream
    if len(streams) < len(networks) or len(positions) != 1:
        streams, positions = {name: FeatureStream(total=total, limit=limit) for name in networks}, {0}
    position = positions.pop()
    progress(position)
    saved_at = time.monotonic()
    for images, labels, next_position in begin(position):
        if len(images):
            for name, network in networks.items():
                streams[name].add(images, network(images), labels)
        progress(next_position - position)
        position = next_position
        if time.monotonic() - saved_at > SAVE_EVERY:
            for name, stream in streams.items():
                stream.save(paths[name], settings | {"network": name, "position": position})
            saved_at = time.monotonic()
    for path in paths.values():
        path.unlink(missing_ok=True)
    return streams
