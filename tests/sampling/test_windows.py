"""Overlapping windows cover a canvas, agree with themselves, and reduce to the network on a canvas of its own size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent import prng
from binlatent.diffusion.prediction import marginal
from binlatent.diffusion.schedule import Linear
from binlatent.nets.condition import Conditioning
from binlatent.sampling import programs
from binlatent.sampling.sampler import Sampler
from binlatent.sampling.windows import Windows, on_windows, windows_of
from binlatent.typing import Prediction
from tests import tiny


@pytest.mark.parametrize("at_a_time", [1, 5, 64])
@pytest.mark.parametrize(("size", "canvas"), [((4, 4), (4, 4)), ((4, 4), (4, 11)), ((3, 2), (7, 5)), ((1, 1), (3, 2))])
def test_what_is_split_and_merged_is_what_it_was(size, canvas, at_a_time):
    windows = Windows(size=size, canvas=canvas, at_a_time=at_a_time)
    x = jax.random.normal(jax.random.key(0), (2, *canvas, 3))
    found = []
    np.testing.assert_allclose(windows(lambda parts: found.append(parts.shape) or parts, x), x, rtol=1e-6)
    n = min(max(1, at_a_time // 2), len(windows.corners))
    assert set(found) == {(2 * n, *size, 3)}


def test_windows_of_an_example_are_side_by_side_with_its_rows():
    x, names = jnp.arange(12.0).reshape(2, 1, 6, 1), jnp.array([10.0, 20.0])
    seen = []

    def look(parts, names):
        jax.debug.callback(lambda *found: seen.append(found), parts[:, 0, 0, 0], names)
        return parts

    Windows(size=(1, 2), canvas=(1, 6), at_a_time=6)(look, x, names)
    jax.effects_barrier()
    assert [[list(map(float, part)) for part in found] for found in seen] == [
        [[0, 1, 2, 6, 7, 8], [10, 10, 10, 20, 20, 20]],
        [[3, 4, 4, 9, 10, 10], [10, 10, 10, 20, 20, 20]],  # five windows: the last is there twice, and counts once
    ]


def test_windows_overlap_by_half():
    assert Windows(size=(4, 4), canvas=(4, 9)).corners == ((0, 0), (0, 2), (0, 4), (0, 5))


def test_where_windows_differ_the_nearer_middle_counts_more():
    windows = Windows(size=(1, 4), canvas=(1, 6))
    x = jnp.zeros((1, 1, 6, 1)).at[0, 0, 2].set(1.0)
    merged = windows(lambda parts: parts[:, :, :1] + jnp.zeros((2, 1, 4, 1)), x)  # 0 and 1
    np.testing.assert_allclose(merged[0, 0, :, 0], [0, 0, 1 / 3, 2 / 3, 1, 1])


def test_pixels_follow_tokens():
    windows = Windows(size=(2, 2), canvas=(2, 3))
    x = jax.random.normal(jax.random.key(0), (1, 8, 12, 1))
    np.testing.assert_allclose(windows(lambda parts: parts, x, scales=(4, 4)), x, rtol=1e-6)
    tokens = windows(lambda parts: parts[:, ::4, ::4], x, scales=(4, 1))
    np.testing.assert_allclose(tokens, x[:, ::4, ::4], rtol=1e-6)
    pixels = windows(lambda parts: parts.repeat(4, 1).repeat(4, 2), tokens, scales=(1, 4))
    np.testing.assert_allclose(pixels, tokens.repeat(4, 1).repeat(4, 2), rtol=1e-6)


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


def test_on_a_canvas_tokens_are_not_tied_beyond_a_window():
    """A canvas of one window: the marginals of the window's prediction, with all its components in each token."""

    def tied(code, t, condition, condition_mask):
        shape = code.shape[:-1]
        logits = jnp.array([2.0, -1.0]).reshape(1, 1, 1, 2, 1) * jnp.where(code, -1.0, 1.0)[..., None, :]
        return Prediction(logits, jnp.zeros((*shape, 2)), jnp.broadcast_to(jnp.array([0.0, 1.0]), (shape[0], 2)))

    code = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 4, 4, 3))
    whole = on_windows(tied, Windows(size=(4, 4), canvas=(4, 4)))(code, jnp.ones(2), None, None)
    assert whole.code_weights is None
    np.testing.assert_allclose(marginal(whole), marginal(tied(code, None, None, None)), rtol=1e-5, atol=1e-6)


def test_where_windows_differ_their_log_odds_are_averaged():
    def corner(code, t, condition, condition_mask):
        """Log-odds that say which window it is: the first bit of its first token."""
        first = jnp.where(code[:, :1, :1, :1], 1.0, -1.0) * jnp.ones(code.shape)
        return Prediction(first[..., None, :], jnp.zeros((*code.shape[:-1], 1)))

    code = jnp.zeros((1, 1, 6, 1), bool).at[0, 0, 2].set(True)
    whole = on_windows(corner, Windows(size=(1, 4), canvas=(1, 6)))(code, jnp.ones(1), None, None)
    np.testing.assert_allclose(whole.logits[0, 0, :, 0, 0], [-1, -1, -1 / 3, 1 / 3, 1, 1], atol=1e-6)


@pytest.fixture(scope="module")
def nets():
    """(autoencoder, its parameters, prior, its parameters), untrained; wide, so that most memory is the networks'."""
    config = tiny.config(prior__width=128, prior__components=1, data__resolution=16)
    prior = config_lib.build_prior_stage(config, (8, 8, 4), Conditioning()).net
    autoencoder = config_lib.build_autoencoder(config)
    code, image, key = jnp.zeros((1, 8, 8, 4), bool), jnp.zeros((1, 16, 16, 1)), jax.random.key(0)
    params = jax.jit(prior.init)(key, code, jnp.zeros(1), None)["params"]
    return autoencoder, jax.jit(autoencoder.init)(key, image)["params"], prior, params


def sampling(nets, width, windows):
    """The sampler of a canvas of 8 × width tokens, lowered, and its arguments."""
    _, _, prior, params = nets
    config = tiny.config()
    objective, options = config_lib.build_objective(config), config_lib.build_sampling(tiny.config(sampling__steps=2))
    keys, code = prng.per_example(jax.random.key(1), 1), jnp.zeros((1, 8, width, 4), bool)
    arguments = params, None, keys, None, jnp.float32(0), jnp.float32(1), code, None
    return programs.generate.lower(
        *arguments, net=prior, objective=objective, autoencoder=None, sampler=options.sampler(objective.schedule),
        guidance=None, clamp="noised", start=1.0, trajectory=False, windows=windows,
    ).compile(), arguments  # fmt: skip


def bytes_per_token(program, widths=(24, 88)):
    """How much more temporary memory a wider canvas needs."""
    small, large = (program(width).memory_analysis().temp_size_in_bytes for width in widths)
    return (large - small) / (8 * (widths[1] - widths[0]))


def test_memory_of_sampling_does_not_grow_with_the_windows(nets):
    undivided, divided = (bytes_per_token(lambda w, n=n: sampling(nets, w, n)[0]) for n in (1000, 2))
    assert undivided > 5_000
    assert divided < 150  # the code, its log-odds and random numbers: 4 bits of 4 bytes, a few times


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_memory_of_the_autoencoder_does_not_grow_with_the_windows(nets, method):
    net, params, *_ = nets

    def program(width, windows):
        if method == "encode":
            image = jax.ShapeDtypeStruct((1, 16, 2 * width, 1), jnp.uint8)
            return programs.encode.lower(params, image, None, net=net, windows=windows).compile()
        code = jax.ShapeDtypeStruct((1, 8, width, 4), bool)
        return programs.decode.lower(params, code, net=net, windows=windows).compile()

    undivided, divided = (bytes_per_token(lambda w, n=n: program(w, n)) for n in (1000, 2))
    assert undivided > 1_000
    assert divided < 50


def test_divided_is_equal_to_undivided(nets):
    net, params, *_ = nets
    codes = []
    for windows in (1000, 3, 1):
        program, arguments = sampling(nets, 24, windows)
        codes.append(program(*arguments)[1])
    assert all(np.array_equal(code, codes[0]) for code in codes)
    assert 0.3 < codes[0].mean() < 0.7
    images = [programs.decode(params, codes[0], net=net, windows=n) for n in (1000, 3)]
    np.testing.assert_allclose(*images, atol=1e-6)
    again = [programs.encode(params, images[0], None, net=net, windows=n) for n in (1000, 3)]
    assert np.array_equal(*again)


def test_seams():
    """Decoded by windows, a canvas is close to what the same convolutions make of all of it at once."""
    net, whole = (config_lib.build_autoencoder(tiny.config(data__resolution=side)) for side in (32, 96))
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]
    code = jax.random.bernoulli(jax.random.key(2), shape=(2, 48, 48, 4))
    at_once, windows = (programs.decode(params, code, net=each) for each in (whole, net))
    rows = [code[:, :, i : i + 16] for i in (0, 16, 32)]
    tiles = [
        jnp.concatenate([programs.decode(params, x[:, i : i + 16], net=net) for i in (0, 16, 32)], 1) for x in rows
    ]
    tiles, near = jnp.concatenate(tiles, 2), np.r_[30:34, 62:66]  # columns near the edges of tiles
    errors = [float(jnp.abs(images - at_once)[:, :, near].mean()) for images in (windows, tiles)]
    assert errors[0] < 0.4 * errors[1]

    def seam(images):
        """Differences across edges of windows, over those across the other edges of tokens."""
        steps = np.abs(np.diff(images, axis=2)).mean((0, 1, 3))[1::2].tolist()  # columns 1 and 2, 3 and 4, …
        edges = [step for i, step in enumerate(steps, 1) if i % 8 == 0]  # a window is 16 tokens, half of it 8
        return np.mean(edges) / np.mean([step for step in steps if step not in edges])

    assert abs(seam(windows) - seam(at_once)) < 0.05 < abs(seam(tiles) - seam(at_once))
