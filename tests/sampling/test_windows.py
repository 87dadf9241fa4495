"""Overlapping windows cover a canvas, agree with themselves, and reduce to the network on a canvas of its own size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion.schedule import Linear
from binlatent.sampling.sampler import Sampler
from binlatent.sampling.windows import Windows, on_windows, windows_of
from binlatent.typing import Prediction


@pytest.mark.parametrize(("size", "canvas"), [((4, 4), (4, 4)), ((4, 4), (4, 11)), ((3, 2), (7, 5)), ((1, 1), (3, 2))])
def test_what_is_split_and_merged_is_what_it_was(size, canvas):
    windows = Windows(size=size, canvas=canvas)
    x = jax.random.normal(jax.random.key(0), (2, *canvas, 3))
    parts = windows.split(x)
    assert parts.shape == (2 * len(windows.corners), *size, 3)
    np.testing.assert_allclose(windows.merge(parts), x, rtol=1e-6)
    assert np.array_equal(parts[0], x[0, : size[0], : size[1]])


def test_windows_overlap_by_half():
    assert Windows(size=(4, 4), canvas=(4, 9)).corners == ((0, 0), (0, 2), (0, 4), (0, 5))


def test_where_windows_differ_the_nearer_middle_counts_more():
    windows = Windows(size=(1, 4), canvas=(1, 6))
    merged = windows.merge(jnp.asarray([0.0, 1.0]).reshape(2, 1, 1, 1) * jnp.ones((2, 1, 4, 1)))
    np.testing.assert_allclose(merged[0, 0, :, 0], [0, 0, 1 / 3, 2 / 3, 1, 1])


def test_pixels_follow_tokens():
    windows = Windows(size=(2, 2), canvas=(2, 3), scale=4)
    x = jax.random.normal(jax.random.key(0), (1, 8, 12, 1))
    assert np.array_equal(windows.split(x)[1], x[0, :, 4:])
    np.testing.assert_allclose(windows.merge(windows.split(x)), x, rtol=1e-6)


def test_a_canvas_of_the_networks_size_has_no_windows():
    assert windows_of((4, 4, 8), (4, 4, 8)) is None
    with pytest.raises(ValueError, match="smaller than a window"):
        windows_of((4, 4, 8), (3, 9, 8))


def test_where_windows_agree_the_canvas_is_as_without_them():
    """A denoiser that looks at each token alone says the same in every window: windows change nothing."""

    def alone(code, t, condition, condition_mask):
        ones = 3.0 * condition[:, None, None, None] * (2.0 * code.mean(-1, keepdims=True) - 0.8) * jnp.ones(code.shape)
        return Prediction(jnp.where(code, -ones, ones)[..., None, :], jnp.zeros((*code.shape[:-1], 1)))

    sampler, keys = Sampler(schedule=Linear(), steps=8), prng.per_example(jax.random.key(0), 5)
    condition = jnp.array([-1.0, 1.0, 0.5, 2.0, 0.0])
    windowed = on_windows(alone, Windows(size=(4, 4), canvas=(5, 9)))
    start = sampler.noise(keys, (5, 9, 3))
    with_windows, without = (
        sampler(lambda z, t, denoise=denoise: denoise(z, t, condition, None), keys, start)
        for denoise in (windowed, alone)
    )
    assert np.array_equal(with_windows, without)
    assert not np.array_equal(with_windows[0], with_windows[1])


def test_where_windows_differ_their_log_odds_are_averaged():
    def corner(code, t, condition, condition_mask):
        """Log-odds that say which window it is: the first bit of its first token."""
        first = jnp.where(code[:, :1, :1, :1], 1.0, -1.0) * jnp.ones(code.shape)
        return Prediction(first[..., None, :], jnp.zeros((*code.shape[:-1], 1)))

    code = jnp.zeros((1, 1, 6, 1), bool).at[0, 0, 2].set(True)
    whole = on_windows(corner, Windows(size=(1, 4), canvas=(1, 6)))(code, jnp.ones(1), None, None)
    np.testing.assert_allclose(whole.logits[0, 0, :, 0, 0], [-1, -1, -1 / 3, 1 / 3, 1, 1], atol=1e-6)
