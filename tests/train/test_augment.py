import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.train.augment import Augmentation

IMAGES = jax.random.uniform(jax.random.key(0), (6, 12, 10, 3))


def keys(seed=1):
    return prng.per_example(jax.random.key(seed), 6)


def test_no_augmentation_is_the_identity():
    assert Augmentation()(keys(), IMAGES) is IMAGES


@pytest.mark.parametrize("kind", ["color", "translation", "cutout"])
def test_each_example_changes_by_its_own_key(kind):
    augment = Augmentation(**{kind: 0.5})
    out = augment(keys(), IMAGES)
    np.testing.assert_allclose(augment(keys()[2:4], IMAGES[2:4]), out[2:4], atol=1e-6)
    same = augment(keys(), jnp.broadcast_to(IMAGES[:1], IMAGES.shape))
    assert len({np.asarray(x).tobytes() for x in same}) > 3


@pytest.mark.parametrize("kind", ["color", "translation", "cutout"])
def test_gradients_flow(kind):
    gradient = jax.grad(lambda x: jnp.square(Augmentation(**{kind: 0.5})(keys(), x)).sum())(IMAGES)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).sum() > 1


def test_translation_moves_pixels_and_fills_with_grey():
    out = np.asarray(Augmentation(translation=0.25)(keys(), IMAGES))
    image = np.pad(np.asarray(IMAGES) - 0.5, ((0, 0), (3, 3), (2, 2), (0, 0))) + 0.5
    shifts = set()
    for i in range(6):
        found = [
            (y, x)
            for y in range(7)
            for x in range(5)
            if np.allclose(image[i, y : y + 12, x : x + 10], out[i], atol=1e-6)
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) > 2


def test_cutout_greys_a_rectangle_and_leaves_the_rest():
    out = np.asarray(Augmentation(cutout=0.5)(keys(), IMAGES))
    changed = np.any(out != np.asarray(IMAGES), axis=-1)
    for i in range(6):
        rows, columns = changed[i].any(1), changed[i].any(0)
        assert rows.sum() <= 6 and columns.sum() <= 5
        np.testing.assert_array_equal(changed[i], np.outer(rows, columns))
        np.testing.assert_allclose(out[i][changed[i]], 0.5)
    assert changed.any()


def test_color_keeps_grey_images_grey_and_shifts_them_within_its_range():
    grey = jnp.broadcast_to(jnp.linspace(0.2, 0.8, 12)[None, :, None, None], IMAGES.shape)
    out = np.asarray(Augmentation(color=1.0)(keys(), grey))
    np.testing.assert_allclose(out - out[..., :1], 0, atol=1e-6)
    shift = out.mean((1, 2, 3)) - 0.5
    assert np.all(np.abs(shift) <= 0.5) and np.std(shift) > 0.05


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="cutout is 2"):
        Augmentation(cutout=2)
