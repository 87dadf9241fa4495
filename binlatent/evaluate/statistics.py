"""Statistics of a stream of features: moments, class probabilities and a bounded sample, but never the images.

All are float64 on the host and, up to rounding, independent of how the stream is batched.
"""

import dataclasses

import numpy as np


class ScoreError(ValueError):
    """Features or images that cannot be scored; the message says why."""


def check_features(features: np.ndarray, name: str = "features") -> np.ndarray:
    """Features as float64 (n, f).

    Raises:
      ScoreError: the features are not a non-empty matrix of finite numbers.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not features.shape[1]:
        raise ScoreError(f"{name} have shape {features.shape}; expected (number, width)")
    if not len(features):
        raise ScoreError(f"{name} are empty: there were no images")
    broken = len(features) - int(np.isfinite(features).all(1).sum())
    if broken:
        raise ScoreError(
            f"{broken} of {len(features)} rows of {name} are not finite, so a score would be meaningless. "
            "Look for NaN in the images or in the network's weights"
        )
    return features


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GaussianStatistics:
    """Number, mean (f,) and scatter (f, f), the sum of outer products of centred features."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, width: int) -> "GaussianStatistics":
        return cls(count=0, mean=np.zeros(width), scatter=np.zeros((width, width)))

    @classmethod
    def of(cls, features: np.ndarray) -> "GaussianStatistics":
        """Statistics of features (n, f); raises ScoreError as `check_features` does."""
        features = check_features(features)
        mean = features.mean(0)
        centred = features - mean
        return cls(count=len(features), mean=mean, scatter=centred.T @ centred)

    def merge(self, other: "GaussianStatistics") -> "GaussianStatistics":
        """Statistics of the union of both streams (Chan, Golub and LeVeque 1979)."""
        if self.mean.shape != other.mean.shape:
            raise ScoreError(f"features of width {len(self.mean)} and {len(other.mean)} cannot be merged")
        count = self.count + other.count
        if not count:
            return self
        difference = other.mean - self.mean
        return GaussianStatistics(
            count=count,
            mean=self.mean + difference * (other.count / count),
            scatter=self.scatter
            + other.scatter
            + np.outer(difference, difference) * (self.count * other.count / count),
        )

    def add(self, features: np.ndarray) -> "GaussianStatistics":
        """The statistics after one more batch (n, f)."""
        return self.merge(GaussianStatistics.of(features))

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance (f, f).

        Raises:
          ScoreError: there are fewer than two samples.
        """
        if self.count < 2:
            raise ScoreError(f"a covariance needs at least 2 samples, not {self.count}")
        return self.scatter / (self.count - 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClassStatistics:
    """Sums of class probabilities for the Inception Score, over consecutive splits of `total` samples."""

    total: int
    seen: int
    counts: np.ndarray  # (splits,)
    shares: np.ndarray  # (splits, classes), sums of class probabilities
    negentropy: np.ndarray  # (splits,), sums of Σ p log p

    @classmethod
    def empty(cls, total: int, classes: int, splits: int = 10) -> "ClassStatistics":
        """Empty sums. Raises ScoreError if there are fewer samples than splits."""
        if total < splits:
            raise ScoreError(f"{total} samples cannot fill {splits} splits of the Inception Score")
        zero = np.zeros(splits)
        return cls(total=total, seen=0, counts=zero, shares=np.zeros((splits, classes)), negentropy=zero)

    def add(self, logits: np.ndarray) -> "ClassStatistics":
        """The sums after the next batch of logits (n, classes), in the order of the samples."""
        logits = check_features(logits, "logits")
        if self.seen + len(logits) > self.total:
            raise ScoreError(f"there are {self.seen + len(logits)} samples, but {self.total} were announced")
        logits = logits - logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        p = np.exp(log_p)
        splits = len(self.counts)
        edges = np.arange(1, splits + 1) * self.total // splits
        split = np.searchsorted(edges, np.arange(self.seen, self.seen + len(p)), side="right")
        counts, shares, negentropy = self.counts.copy(), self.shares.copy(), self.negentropy.copy()
        np.add.at(counts, split, 1)
        np.add.at(shares, split, p)
        np.add.at(negentropy, split, (p * log_p).sum(1))
        return ClassStatistics(
            total=self.total, seen=self.seen + len(p), counts=counts, shares=shares, negentropy=negentropy
        )


def _priority(index: np.ndarray, seed: int) -> np.ndarray:
    """A pseudorandom uint64 for every position of the stream (splitmix64)."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = z * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSample:
    """A uniform sample of at most `limit` features of a stream, for scores that compare single images.

    The choice of positions depends only on (seed, position), not on the batch size or the images, so a folder sorted by
    class is sampled evenly. `labels` are -1 where there are none.
    """

    limit: int
    seed: int
    index: np.ndarray  # (n,) positions in the stream, ascending
    features: np.ndarray  # (n, f), float32
    labels: np.ndarray  # (n,), int32

    @classmethod
    def empty(cls, width: int, limit: int = 10_000, seed: int = 0) -> "FeatureSample":
        none = np.zeros(0, np.int64)
        features = np.zeros((0, width), np.float32)
        return cls(limit=limit, seed=seed, index=none, features=features, labels=none.astype(np.int32))

    def add(self, features: np.ndarray, start: int, labels: np.ndarray | None = None) -> "FeatureSample":
        """The sample after the batch (n, f) that starts at position `start` of the stream."""
        features = np.asarray(features, np.float32)
        labels = np.full(len(features), -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        index = np.concatenate([self.index, np.arange(start, start + len(features))])
        features = np.concatenate([self.features, features])
        labels = np.concatenate([self.labels, labels])
        if len(index) > self.limit:
            keep = np.sort(np.argsort(_priority(index, self.seed), kind="stable")[: self.limit])
            index, features, labels = index[keep], features[keep], labels[keep]
        return dataclasses.replace(self, index=index, features=features, labels=labels)
