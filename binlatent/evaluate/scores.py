"""Scores of one set of features against another: arrays in, numbers out.

FID, sFID and KID are defined on Inception features; on other features the same formulas are reported as Fréchet and
kernel distances.
"""

import dataclasses

import numpy as np

from binlatent.evaluate.statistics import ClassStatistics, GaussianStatistics, ScoreError, check_features

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
_CHUNK = 1024


def _same_width(a, b):
    if a != b:
        raise ScoreError(f"features of width {a} and {b} cannot be compared; both sets need the same feature network")


def _root(covariance: np.ndarray) -> np.ndarray:
    """A factor R with R Rᵀ = covariance; negative eigenvalues (rounding) are set to 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), the squared 2-Wasserstein distance of Gaussians (Heusel et al. 2017).

    The trace of the root is the sum of the singular values of R_aᵀ R_b for any factors R Rᵀ = Σ. Unlike a root of the
    product, this needs no regularisation when a covariance is singular, as with fewer samples than features.

    Raises:
      ScoreError: the widths differ, or there are fewer than two samples.
    """
    _same_width(len(a.mean), len(b.mean))
    cov_a, cov_b = a.covariance, b.covariance
    cross = np.linalg.svd(_root(cov_a).T @ _root(cov_b), compute_uv=False).sum()
    return float(np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def inception_score(statistics: ClassStatistics) -> tuple[float, float]:
    """The mean and standard deviation of exp(E KL(p(y|x) ‖ p(y))) over splits (Salimans et al. 2016).

    Raises:
      ScoreError: the number of samples differs from the announced one.
    """
    if statistics.seen != statistics.total:
        raise ScoreError(
            f"{statistics.total} samples were announced for the Inception Score; there are {statistics.seen}"
        )
    share = statistics.shares / statistics.counts[:, None]
    entropy = np.sum(share * np.log(np.maximum(share, np.finfo(np.float64).tiny)), 1)
    scores = np.exp(statistics.negentropy / statistics.counts - entropy)
    return float(scores.mean()), float(scores.std())


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """Mean and standard deviation over `subsets` subsets of `subset_size` samples."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def kernel_distance(
    fake: np.ndarray, real: np.ndarray, *, subsets: int = KID_SUBSETS, subset_size: int = KID_SUBSET_SIZE, seed: int = 0
) -> KernelDistance:
    """Unbiased squared MMD with the kernel (x·y / f + 1)³ (Bińkowski et al. 2018): KID if the features are Inception's.

    Subsets are drawn as in torch-fidelity. If a set has fewer than `subset_size` samples, subsets shrink to its size.

    Raises:
      ScoreError: the widths differ, features are not finite, or there are fewer than two samples.
    """
    fake, real = check_features(fake, "features of samples"), check_features(real, "features of the reference")
    _same_width(fake.shape[1], real.shape[1])
    size = min(subset_size, len(fake), len(real))
    if size < 2:
        raise ScoreError(f"a kernel distance needs at least 2 samples in each set, not {len(fake)} and {len(real)}")

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (size * (size - 1))

    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[rng.choice(len(fake), size, replace=False)]
        y = real[rng.choice(len(real), size, replace=False)]
        values.append(off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean())
    return KernelDistance(mean=float(np.mean(values)), std=float(np.std(values)), subsets=subsets, subset_size=size)


def _squared_distances(a, b):
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T), 0)


def _radii(features, neighbours):
    """Squared distances (n, len(neighbours)) from every feature to its k-th nearest neighbour."""
    rows = []
    for start in range(0, len(features), _CHUNK):
        d = _squared_distances(features[start : start + _CHUNK], features)
        # position 0 is the point itself
        rows.append(np.partition(d, neighbours, axis=1)[:, neighbours])
    return np.concatenate(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManifoldScores:
    """Precision and recall (Kynkäänniemi et al. 2019, k = 3), density and coverage (Naeem et al. 2020, k = 5)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    fake: np.ndarray,
    real: np.ndarray,
    *,
    precision_neighbours: int = PRECISION_NEIGHBOURS,
    density_neighbours: int = DENSITY_NEIGHBOURS,
) -> ManifoldScores:
    """Precision, recall, density and coverage; distances are float64, computed a chunk of rows at a time.

    Raises:
      ScoreError: the widths differ, features are not finite, or there are too few samples for the neighbours.
    """
    fake, real = check_features(fake, "features of samples"), check_features(real, "features of the reference")
    _same_width(fake.shape[1], real.shape[1])
    most = max(precision_neighbours, density_neighbours)
    if min(len(fake), len(real)) <= most:
        raise ScoreError(f"{most} neighbours need more than {most} samples, not {len(fake)} and {len(real)}")
    centre = real.mean(0)  # centring reduces cancellation in the distances
    fake, real = fake - centre, real - centre
    fake_radius = _radii(fake, [precision_neighbours])[:, 0]
    real_radius, real_wide = _radii(real, [precision_neighbours, density_neighbours]).T
    precise, dense = [], []
    recalled, nearest = np.zeros(len(real), bool), np.full(len(real), np.inf)
    for start in range(0, len(fake), _CHUNK):
        d = _squared_distances(fake[start : start + _CHUNK], real)
        precise.append((d <= real_radius).any(1))
        dense.append((d <= real_wide).sum(1))
        recalled |= (d <= fake_radius[start : start + _CHUNK, None]).any(0)
        nearest = np.minimum(nearest, d.min(0))
    return ManifoldScores(
        precision=float(np.concatenate(precise).mean()),
        recall=float(recalled.mean()),
        density=float(np.concatenate(dense).mean() / density_neighbours),
        coverage=float((nearest <= real_wide).mean()),
    )


def frechet_distance_of_samples(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` computed from features (n, f), which is cheap with fewer samples than features.

    Centred features are a factor of their covariance, so the cross term is a sum of singular values of an n × n matrix.

    Raises:
      ScoreError: as `frechet_distance`.
    """
    a, b = check_features(a), check_features(b)
    _same_width(a.shape[1], b.shape[1])
    if min(len(a), len(b)) < 2:
        raise ScoreError(f"a covariance needs at least 2 samples, not {len(a)} and {len(b)}")
    if min(len(a), len(b)) > a.shape[1]:
        return frechet_distance(GaussianStatistics.of(a), GaussianStatistics.of(b))
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(np.sum((mean_a - mean_b) ** 2) + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross)
