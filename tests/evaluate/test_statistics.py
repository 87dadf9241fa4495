"""Statistics of streams of features do not depend on the batches."""

import numpy as np
import pytest

from binlatent.evaluate.statistics import ClassStatistics, FeatureSample, GaussianStatistics


def features(n=300, f=7, seed=0):
    rng = np.random.default_rng(seed)
    return 100 + rng.normal(size=(n, f)) @ rng.normal(size=(f, f))


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_streaming_equals_in_memory(batch):
    x = features()
    stream = GaussianStatistics.empty(7)
    for start in range(0, len(x), batch):
        stream = stream.add(x[start : start + batch])
    assert stream.count == 300
    np.testing.assert_allclose(stream.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stream.covariance, np.cov(x, rowvar=False), rtol=1e-9)


def test_merge_equals_one_stream_and_refuses_other_widths():
    x = features()
    merged = GaussianStatistics.of(x[:11]).merge(GaussianStatistics.of(x[11:]))
    np.testing.assert_allclose(merged.covariance, np.cov(x, rowvar=False), rtol=1e-10)
    with pytest.raises(ValueError, match="width 7 and 3"):
        merged.merge(GaussianStatistics.empty(3))


@pytest.mark.parametrize(
    "wrong, said",
    [
        (np.full((4, 3), np.nan), "4 of 4 rows"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros(3), r"shape \(3,\)"),
    ],
)
def test_degenerate_features_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        GaussianStatistics.of(wrong)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2"):
        _ = GaussianStatistics.of(np.zeros((1, 3))).covariance


def test_sample_does_not_depend_on_batches_and_keeps_labels():
    x, labels = features(), np.arange(300) // 30

    def stream(batch):
        sample = FeatureSample.empty(7, limit=100, seed=3)
        for start in range(0, 300, batch):
            sample = sample.add(x[start : start + batch], start, labels[start : start + batch])
        return sample

    a, b = stream(13), stream(300)
    np.testing.assert_array_equal(a.index, b.index)
    np.testing.assert_allclose(a.features, x[a.index], rtol=1e-6)
    np.testing.assert_array_equal(a.labels, labels[a.index])
    assert len(a.index) == 100
    assert np.bincount(a.labels, minlength=10).min() > 2  # sorted by class, sampled over all of it
    assert not np.array_equal(a.index, FeatureSample.empty(7, limit=100, seed=4).add(x, 0).index)


def test_class_statistics_count_what_was_announced():
    logits = np.random.default_rng(0).normal(size=(50, 4))
    whole = ClassStatistics.empty(50, 4, 7).add(logits)
    parts = ClassStatistics.empty(50, 4, 7).add(logits[:20]).add(logits[20:])
    np.testing.assert_allclose(whole.shares, parts.shares)
    assert whole.counts.tolist() == [50 * (i + 1) // 7 - 50 * i // 7 for i in range(7)]
    with pytest.raises(ValueError, match="there are 51 samples, but 50"):
        parts.add(logits[:1])
    with pytest.raises(ValueError, match="cannot fill 10 splits"):
        ClassStatistics.empty(5, 4)
