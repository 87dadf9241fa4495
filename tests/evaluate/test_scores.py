"""Scores compared with trusted implementations on the same features, with closed forms, and on degenerate sets."""

import numpy as np
import pytest

from binlatent.evaluate.scores import frechet_distance, inception_score, kernel_distance, manifold_scores
from binlatent.evaluate.statistics import ClassStatistics, GaussianStatistics
from tests.torch_nets import torch_and


def pair(n=400, m=500, f=16, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(f, f)) / f**0.5
    return rng.normal(size=(n, f)) @ mix + 0.1, rng.normal(size=(m, f)) @ (mix + 0.2 * rng.normal(size=(f, f)) / f**0.5)


def fid(a, b):
    return frechet_distance(GaussianStatistics.of(a), GaussianStatistics.of(b))


def test_frechet_of_known_gaussians():
    """Commuting covariances: ‖Δμ‖² + Σ (σ_a − σ_b)²."""

    def gaussian(mean, sigma):
        return GaussianStatistics(count=1001, mean=np.asarray(mean), scatter=1000 * np.diag(np.square(sigma)))

    a, b = gaussian([0.0, 1.0, 2.0], [1.0, 2.0, 0.0]), gaussian([1.0, 1.0, 0.0], [2.0, 0.5, 3.0])
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 2.25 + 9, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_frechet_of_sampled_gaussians_converges():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200_000, 4)), 0.5 + 2 * rng.normal(size=(200_000, 4))
    assert fid(a, b) == pytest.approx(4 * 0.25 + 4 * 1, rel=0.02)


def test_frechet_equals_pytorch_fid_and_scipy():
    a, b = pair()
    scipy_linalg = pytest.importorskip("scipy.linalg")
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy_linalg.sqrtm(cov_a @ cov_b).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert fid(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_equals_torch_fidelity():
    torch, metric = torch_and("torch_fidelity.metric_fid")
    a, b = pair()
    stats = [metric.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = metric.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert fid(a, b) == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_equals_torch_fidelity():
    torch, metric = torch_and("torch_fidelity.metric_kid")
    a, b = pair()
    expected = metric.kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=11, kid_subset_size=100, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=5, verbose=False,
    )  # fmt: skip
    ours = kernel_distance(a, b, subsets=11, subset_size=100, seed=5)
    assert ours.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-4)


def test_inception_score_equals_torch_fidelity():
    torch, metric = torch_and("torch_fidelity.metric_isc")
    logits = np.random.default_rng(0).normal(size=(203, 12)) * 3
    expected = metric.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    mean, std = inception_score(ClassStatistics.empty(203, 12, 10).add(logits[:50]).add(logits[50:]))
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-6)


def test_inception_score_of_certain_and_uncertain_classes():
    certain = np.log(np.eye(5)[np.arange(100) % 5] + 1e-30)
    assert inception_score(ClassStatistics.empty(100, 5, 4).add(certain))[0] == pytest.approx(5)
    assert inception_score(ClassStatistics.empty(100, 5, 4).add(np.zeros((100, 5))))[0] == pytest.approx(1)


def test_inception_score_waits_for_every_sample():
    with pytest.raises(ValueError, match=r"100 samples were announced .*there are 99"):
        inception_score(ClassStatistics.empty(100, 5).add(np.zeros((99, 5))))


def test_manifold_equals_prdc():
    prdc = pytest.importorskip("prdc.prdc", reason="prdc is not installed: density and coverage not compared")
    fake, real = pair()
    wide, narrow = prdc.compute_prdc(real, fake, 5), prdc.compute_prdc(real, fake, 3)
    ours = manifold_scores(fake, real)
    assert 0 < ours.precision < 1 and 0 < ours.recall < 1
    assert ours.precision == pytest.approx(narrow["precision"], rel=1e-9)
    assert ours.recall == pytest.approx(narrow["recall"], rel=1e-9)
    assert ours.density == pytest.approx(wide["density"], rel=1e-9)
    assert ours.coverage == pytest.approx(wide["coverage"], rel=1e-9)


def test_manifold_equals_torch_fidelity():
    torch, metric = torch_and("torch_fidelity.metric_prc")
    fake, real = pair()
    expected = metric.calculate_precision_recall_full(torch.from_numpy(fake), torch.from_numpy(real), neighborhood=3)
    ours = manifold_scores(fake, real)
    assert (ours.precision, ours.recall) == pytest.approx(expected, rel=1e-6)


def test_manifold_does_not_depend_on_the_chunk(monkeypatch):
    fake, real = pair()
    whole = manifold_scores(fake, real)
    monkeypatch.setattr("binlatent.evaluate.scores._CHUNK", 7)
    assert manifold_scores(fake, real) == whole


def test_identical_sets():
    a, _ = pair()
    assert abs(fid(a, a)) < 1e-9
    assert abs(kernel_distance(a, a, subsets=3).mean) < 0.05
    scores = manifold_scores(a, a)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)


def test_constant_sets():
    a = np.ones((20, 4))
    assert abs(fid(a, a)) < 1e-12
    assert fid(a, a + 1) == pytest.approx(4)
    assert manifold_scores(a, a).coverage == 1
    assert manifold_scores(a + 1, a).precision == 0


def test_fewer_samples_than_features():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(10, 64)), rng.normal(size=(12, 64))
    assert abs(fid(a, a)) < 1e-9
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1]) - 2 * root
    assert fid(a, b) == pytest.approx(expected, rel=1e-4)


def test_sets_that_cannot_be_compared_are_refused():
    a = np.random.default_rng(0).normal(size=(20, 4))
    with pytest.raises(ValueError, match="width 4 and 3"):
        fid(a, a[:, :3])
    with pytest.raises(ValueError, match="width 4 and 3"):
        kernel_distance(a, a[:, :3])
    with pytest.raises(ValueError, match="width 4 and 3"):
        manifold_scores(a, a[:, :3])
    with pytest.raises(ValueError, match="1 of 20 rows of features of samples are not finite"):
        kernel_distance(np.where(np.arange(20)[:, None] == 3, np.nan, a), a)
    with pytest.raises(ValueError, match="more than 5 samples, not 5"):
        manifold_scores(a[:5], a)
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(a[:1], a)
