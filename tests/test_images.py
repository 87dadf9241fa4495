"""PSNR, SSIM and L1 against scikit-image and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from binlatent.images import captioned_grid, grid_columns, image_grid, l1, psnr, save_image, ssim


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


@pytest.mark.parametrize(
    ("num", "group", "columns"),
    [(64, 1, 8), (64, 2, 8), (64, 4, 8), (64, 10, 10), (64, 3, 9), (64, 1000, 8), (100, 10, 10), (2, 2, 2), (5, 10, 3),
     (1, 1, 1), (200, 2, 14)],
)  # fmt: skip
def test_grids_are_about_square_and_keep_groups_together(num, group, columns):
    assert grid_columns(num, group) == columns


def test_a_grid_holds_every_image_in_its_place(tmp_path):
    images = np.arange(1, 6, dtype=np.uint8).repeat(2 * 3).reshape(5, 2, 3, 1)
    grid = image_grid(images, 3, shortest=1)
    assert grid.shape == (5, 11, 1)
    assert grid[::3, ::4, 0].tolist() == [[1, 2, 3], [4, 5, 255]]
    assert (grid[2] == 255).all() and (grid[:, 3] == 255).all()  # gaps
    save_image(tmp_path / "g.png", grid)
    save_image(tmp_path / "g.JPG", grid)
    assert np.array_equal(PIL.Image.open(tmp_path / "g.png"), grid[..., 0])
    assert PIL.Image.open(tmp_path / "g.JPG").format == "JPEG"


def test_captions_stand_below_their_images():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    picture = captioned_grid(images, ["a", "two words", ""], columns=2, scale=10)
    assert picture.dtype == np.uint8 and picture.shape[1:] == (2 * 96, 3)
    black = (picture == 0).all(-1)
    half = len(picture) // 2
    assert black[8:88, 8:88].all() and black[8:88, 104:184].all() and black[half + 8 : half + 88, 8:88].all()
    below = [part.any() for part in (black[88:half, :96], black[88:half, 96:], black[half + 88 :, :96])]
    assert below == [True, True, False]
    assert not black[half:, 96:].any()  # there is no fourth image
