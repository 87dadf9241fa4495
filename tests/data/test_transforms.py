import numpy as np
import PIL.Image
import pytest

from binlatent.data.transforms import DrawCode, EvalImage, TrainImage, cut_square, plain_code, to_channels


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_right_size_pass_unchanged(channels):
    image = noise(8, 8, channels)
    np.testing.assert_array_equal(EvalImage(resolution=8, channels=channels)({"image": image})["image"], image)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (40, 17), (1, 1), (64, 3)])
@pytest.mark.parametrize("source_channels", [1, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_and_mode_becomes_the_requested_one(shape, source_channels, channels):
    example = {"image": noise(*shape, source_channels), "label": np.int32(3)}
    train = TrainImage(resolution=8, channels=channels, crop="random", flip=True)
    for out in (train(example, np.random.default_rng(0)), EvalImage(resolution=8, channels=channels)(example)):
        assert out["image"].shape == (8, 8, channels)
        assert out["image"].dtype == np.uint8
        assert out["image"].flags.c_contiguous
        assert out["label"] == 3


def test_grey_is_what_pillow_makes_of_a_colour_image():
    image = noise(16, 16, 3)
    grey = np.asarray(PIL.Image.fromarray(image).convert("L"))
    assert np.abs(to_channels(image, 1)[..., 0].astype(int) - grey).max() <= 1


def test_transparency_is_composited_over_white():
    image = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    np.testing.assert_array_equal(to_channels(image, 3)[0], [[255, 255, 255], [10, 20, 30], [127, 127, 127]])


def test_the_square_is_cropped_at_the_given_position():
    wide = np.arange(10, dtype=np.uint8)[None, :, None] * np.ones((4, 1, 1), np.uint8)
    assert cut_square(wide, 4, 0.0)[0, 0, 0] == 0
    assert cut_square(wide, 4, 0.5)[0, 0, 0] == 3
    assert cut_square(wide, 4, 1.0)[0, -1, 0] == 9
    tall = wide.transpose(1, 0, 2)
    assert cut_square(tall, 4, 0.5)[0, 0, 0] == 3


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = cut_square(stripes, 8, 0.5)[2:-2, 2:-2]
    assert np.abs(small.astype(int) - 128).max() <= 2


def test_random_crops_reach_both_ends_and_centre_crops_stay():
    wide = np.arange(12, dtype=np.uint8)[None, :, None] * np.ones((8, 1, 1), np.uint8)
    rng = np.random.default_rng(0)
    left = {crop: set() for crop in ("random", "center")}
    for crop, seen in left.items():
        transform = TrainImage(resolution=8, channels=1, crop=crop, flip=False)
        for _ in range(60):
            seen.add(int(transform({"image": wide}, rng)["image"][0, 0, 0]))
    assert left == {"random": {0, 1, 2, 3, 4}, "center": {2}}


def test_half_of_the_images_are_mirrored_each_by_its_own_draw():
    image = noise(8, 8, 3)
    transform = TrainImage(resolution=8, channels=3, crop="center", flip=True)
    rng = np.random.default_rng(0)
    results = [transform({"image": image}, rng)["image"] for _ in range(200)]
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    assert all(flip or np.array_equal(result, image) for flip, result in zip(mirrored, results, strict=True))
    assert 70 < sum(mirrored) < 130


def test_all_codes_of_an_image_are_drawn_equally_often_in_training_only():
    views = np.arange(1, 4, dtype=np.uint8)[:, None].repeat(2, 1)
    example = {"code": np.zeros(2, np.uint8), "views": views, "label": np.int32(1)}
    rng = np.random.default_rng(0)
    chosen = [DrawCode()(example, rng) for _ in range(400)]
    assert all(set(one) == {"code", "label"} for one in chosen)
    counts = np.bincount([int(one["code"][0]) for one in chosen])
    assert len(counts) == 4 and (counts > 70).all() and (counts < 130).all()
    assert example["code"][0] == 0  # the source's own is untouched
    assert plain_code(example).keys() == {"code", "label"} and plain_code(example)["code"][0] == 0
    assert DrawCode()({"code": example["code"]}, rng).keys() == {"code"}
