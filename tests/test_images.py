"""PSNR, SSIM and L1 against scikit-image and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.images import l1, psnr, ssim


def images(shape=(3, 24, 17, 3)):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, dtype=np.uint8)
    noise = rng.normal(0, [[[[5]]], [[[30]]], [[[90]]]], shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_scikit_image(channels):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed: SSIM not compared")
    a, b = (x[..., :channels] / 255 for x in images())
    expected = [
        metrics.structural_similarity(
            p, q, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
        )
        for p, q in zip(a, b, strict=True)
    ]
    ours = jax.jit(ssim)(jnp.asarray(a), jnp.asarray(b))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_psnr_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed: PSNR not compared")
    a, b = images()
    expected = [metrics.peak_signal_noise_ratio(p, q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(jax.jit(psnr)(a, b), expected, rtol=1e-5)


def test_known_values_and_identical_images():
    a, b = jnp.zeros((2, 12, 12, 1)), jnp.full((2, 12, 12, 1), 0.1)
    np.testing.assert_allclose(psnr(a, b), [20, 20], rtol=1e-5)
    np.testing.assert_allclose(l1(a, b), [0.1, 0.1], rtol=1e-5)
    assert np.isinf(psnr(a, a)).all()
    np.testing.assert_allclose(ssim(b, b), 1, rtol=1e-6)


def test_bytes_and_floats_agree():
    a, b = images()
    for score in (psnr, ssim, l1):
        np.testing.assert_allclose(score(a, b), score(jnp.asarray(a / 255), jnp.asarray(b / 255)), rtol=1e-5)


def test_other_sizes_are_refused():
    a = jnp.zeros((2, 12, 12, 1))
    for score in (psnr, ssim, l1):
        with pytest.raises(ValueError, match="cannot be compared"):
            score(a, a[:, :11])
    with pytest.raises(ValueError, match="10×12 are too small"):
        ssim(a[:, :10], a[:, :10])
