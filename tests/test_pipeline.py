import jax
import numpy as np
import pytest

import binlatent
from binlatent.errors import UserError
from tests import tiny


@pytest.fixture(scope="module")
def model(trained):
    return binlatent.load(trained)


def test_encode_and_decode(model):
    images = tiny.images(11)
    codes = model.encode(images)
    assert codes.shape == (11, 4, 4, 4)
    assert codes.dtype == bool
    assert np.array_equal(codes, model.encode(images.astype(np.float32) / 255))
    restored = model.decode(codes)
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    assert not np.array_equal(codes, model.encode(images, jax.random.key(0)))


def test_samples_are_a_function_of_seed_and_place(model):
    few = model.sample(seed=3, num=4, labels=[0, 1], steps=2)
    many = model.sample(seed=3, num=20, labels=[0, 1], steps=2)
    np.testing.assert_allclose(few, many[:4], atol=1e-5)
    assert not np.allclose(few, model.sample(seed=4, num=4, labels=[0, 1], steps=2))
    later = next(model.sample_batches(seed=3, num=4, start=16, labels=[0, 1], steps=2))
    np.testing.assert_allclose(later.images, many[16:20], atol=1e-5)


def test_denoise_and_likelihood(model):
    codes = np.random.default_rng(0).random((5, 4, 4, 4)) < 0.5
    assert model.denoise(codes, 0.5).shape == codes.shape
    assert np.array_equal(model.denoise(codes, 0.5, label=1), model.denoise(codes, np.full(5, 0.5), label=[1] * 5))
    bits = model.bits_per_bit(codes, seed=1, steps=8)
    assert bits.shape == (5,)
    np.testing.assert_allclose(bits, model.elbo_terms(codes, seed=1, steps=8).sum(0) / 64, rtol=1e-5)


def test_editing_keeps_what_is_known(model):
    codes = model.encode(tiny.images(3))
    known = np.zeros_like(codes)
    known[:, :2] = True
    edited = model.edit(codes, known=known, seed=1, steps=3)
    assert np.array_equal(edited[:, :2], codes[:, :2])
    variation = model.edit(codes, start=0.1, seed=1, steps=3)
    fresh = model.edit(codes, start=1.0, seed=1, steps=3)
    assert (variation != codes).mean() < (fresh != codes).mean()
    path = model.interpolate(codes[0], codes[1], 4)
    assert np.array_equal(path[0], codes[0])
    assert np.array_equal(path[-1], codes[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(labels=[3]), "from 0 to 2"),
        (lambda m: m.sample(labels=[-1]), "from 0 to 2"),
        (lambda m: m.sample(steps=0), "steps is 0"),
        (lambda m: m.sample(temperature=0.0), "temperature is 0.0"),
        (lambda m: m.sample(posterior="exact"), "mixture.*plugin"),
        (lambda m: m.sample(stpes=3), "stpes"),
        (lambda m: m.sample(num=0), "num is 0"),
        (lambda m: m.encode(np.zeros((2, 9, 8, 1), np.uint8)), r"\(2, 9, 8, 1\).*b, 8, 8, 1"),
        (lambda m: m.encode(np.full((1, 8, 8, 1), np.nan, np.float32)), "NaN"),
        (lambda m: m.decode(np.zeros((1, 4, 4, 5), bool)), r"b, 4, 4, 4"),
        (lambda m: m.denoise(np.zeros((1, 4, 4, 4), bool), 1.5), "t is 1.5"),
    ],
)
def test_wrong_input_is_named(model, call, message):
    with pytest.raises(UserError, match=message):
        call(model)


def test_no_work_directory(tmp_path):
    with pytest.raises(UserError, match="no work directory"):
        binlatent.load(tmp_path)
