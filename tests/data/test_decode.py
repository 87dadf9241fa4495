import io
import tracemalloc

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binlatent.data import decode
from binlatent.data.decode import decode_image
from binlatent.data.transforms import cut_square


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey():
    np.testing.assert_array_equal(decode_image(encoded(PIL.Image.fromarray(RAMP)))[..., 0], RAMP)


def test_black_and_white():
    image = decode_image(encoded(PIL.Image.fromarray(RAMP).point(lambda v: 255 * (v > 99)).convert("1")))
    np.testing.assert_array_equal(image[..., 0], np.where(RAMP > 99, 255, 0))


def test_colour_and_opacity():
    rgba = np.stack([RAMP, RAMP.T, 255 - RAMP, RAMP], -1)
    np.testing.assert_array_equal(decode_image(encoded(PIL.Image.fromarray(rgba))), rgba)
    np.testing.assert_array_equal(decode_image(encoded(PIL.Image.fromarray(rgba[..., :3]), "bmp")), rgba[..., :3])
    grey_alpha = decode_image(encoded(PIL.Image.fromarray(rgba).convert("LA")))
    assert grey_alpha.shape == (16, 16, 4)
    np.testing.assert_array_equal(grey_alpha[..., 3], RAMP)


def test_palettes_with_and_without_a_transparent_entry():
    image = PIL.Image.fromarray(RAMP % 2).convert("P")
    image.putpalette([250, 0, 0, 0, 0, 250])
    plain = decode_image(encoded(image))
    assert plain.shape == (16, 16, 3)
    assert plain[0, 0].tolist() == [250, 0, 0]
    clear = decode_image(encoded(image, transparency=1))
    assert clear.shape == (16, 16, 4)
    assert clear[0, 0].tolist() == [250, 0, 0, 255]
    assert clear[0, 1, 3] == 0


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_become_eight_over_the_whole_range(kind):
    wide = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(encoded(PIL.Image.fromarray(wide), kind))[..., 0], RAMP)


def test_cmyk_becomes_rgb():
    image = PIL.Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red = decode_image(encoded(image, "jpeg"))
    assert red.shape == (4, 4, 3)
    assert red[0, 0, 0] > 230 and red[0, 0, 1:].max() < 25


def test_the_camera_s_rotation_is_applied():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270° to view
    image = PIL.Image.fromarray(np.repeat(RAMP[:, :8, None], 3, -1))
    upright = decode_image(encoded(image, "png", exif=exif.tobytes()))
    np.testing.assert_array_equal(upright[..., 0], np.rot90(RAMP[:, :8], -1))


def test_the_first_frame_of_an_animation():
    frames = [PIL.Image.new("RGB", (4, 4), (c, c, c)) for c in (10, 200)]
    image = decode_image(encoded(frames[0], "gif", save_all=True, append_images=frames[1:]))
    assert image.shape[:2] == (4, 4)
    assert image[0, 0, 0] == 10


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_files_truncated_anywhere_are_errors(kind):
    data = encoded(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), kind)
    assert decode_image(data).shape == (64, 64, 3)
    for part in (data[: len(data) // 2], data[:20], data[:2], b"", b"not an image"):
        with pytest.raises(ValueError, match=r"\w"):
            decode_image(part)


def test_floating_point_pixels_are_refused():
    with pytest.raises(ValueError, match=r"floating-point"):
        decode_image(encoded(PIL.Image.fromarray(np.zeros((4, 4), np.float32)), "tiff"))


SMOOTH = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)).resize((500, 500))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_large_image_is_reduced_to_at_least_twice_the_resolution(kind):
    data = encoded(SMOOTH, kind)
    image = decode_image(data, 32)
    assert 64 <= min(image.shape[:2]) <= 128
    exact = cut_square(decode_image(data), 32, 0.5)
    assert np.abs(cut_square(image, 32, 0.5).astype(int) - exact).mean() < 1.5
    np.testing.assert_array_equal(decode_image(data, 200), decode_image(data))


def test_sixteen_bits_are_reduced_too():
    wide = np.repeat(np.repeat(RAMP.astype(np.uint16) * 257, 32, 0), 32, 1)
    image = decode_image(encoded(PIL.Image.fromarray(wide)), 8)[..., 0]
    assert image.shape == (16, 16)
    assert np.abs(image.astype(int) - RAMP).max() <= 1


def test_a_photograph_takes_little_memory():
    data = encoded(SMOOTH.resize((6000, 4000)), "jpeg")
    file = PIL.Image.open(io.BytesIO(data))
    file.draft(None, (64, 64))
    assert file.size == (750, 500)  # an eighth: what `decode_image` decodes of it
    assert min(decode_image(data, 32).shape[:2]) <= 128


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    data = encoded(SMOOTH)
    monkeypatch.setattr(decode, "MOST_PIXELS", 249_999)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"500×500 pixels; at most 249,999 are decoded"):
        decode_image(data, 32)
    assert tracemalloc.get_traced_memory()[1] < 250_000
    tracemalloc.stop()
    assert decode_image(encoded(SMOOTH, "jpeg"), 32).shape[-1] == 3  # a JPEG is decoded at a part of its size


def test_messages_name_no_object_in_memory():
    with pytest.raises(ValueError, match=r"^not an image in a known format, or its header is damaged$"):
        decode_image(b"not an image")


SEEDS = [encoded(SMOOTH.resize((20, 16)), kind) for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm")] + [
    encoded(PIL.Image.fromarray(RAMP.astype(np.uint16)), kind) for kind in ("png", "tiff")
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4)), max_size=6),
    stop=st.integers(0, 3000),
    side=st.sampled_from([0, 1, 4]),
)
def test_any_bytes_are_an_image_or_a_value_error(data, edits, stop, side):
    data = bytearray(data)
    for place, new in edits:
        data[place % len(data) : place % len(data) + len(new)] = new
    try:
        image = decode_image(bytes(data[: stop if stop < len(data) else None]), side)
    except ValueError as error:
        assert str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] in (1, 3, 4) and image.size
