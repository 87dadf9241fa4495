"""Known pixels stay; what is under a mask has no effect; canvases are continued."""

import numpy as np
import pytest

import binlatent
from binlatent.editing.complete import inpaint, outpaint, sample_canvas
from binlatent.editing.known import box, known_code, paste
from binlatent.errors import UserError
from binlatent.images import to_float, to_uint8
from binlatent.pipeline import Pipeline
from tests import tiny

IMAGES = tiny.images(3)
MASK = np.zeros((8, 8), bool)
MASK[5:, 4:] = True
FEW = {"steps": 3, "seed": 1}


@pytest.fixture(scope="module")
def model(trained):
    return binlatent.load(trained)


def test_what_is_under_the_mask_has_no_effect(model):
    painted = IMAGES.copy()
    painted[:, MASK] = 255 - painted[:, MASK]
    first, second = (inpaint(model, images, MASK, feather=1.5, **FEW) for images in (IMAGES, painted))
    assert np.array_equal(first.codes, second.codes)
    assert np.array_equal(first.images, second.images)
    assert not np.array_equal(model.encode(IMAGES), model.encode(painted))


def test_known_pixels_stay_beyond_the_feather(model):
    made = inpaint(model, IMAGES, MASK, feather=0, **FEW).images
    assert np.array_equal(to_uint8(made)[:, ~MASK], IMAGES[:, ~MASK])
    made = inpaint(model, IMAGES, MASK, feather=1, **FEW).images
    assert np.array_equal(to_uint8(made)[:, :4, :3], IMAGES[:, :4, :3])


class Parity(Pipeline):
    """An encoder whose bit of a token of 2×2 pixels is the parity of all pixels at most one away from it."""

    def encode(self, images, key=None):
        values = np.pad(np.round(np.asarray(to_float(images))[..., 0] * 255).astype(int), ((0, 0), (1, 1), (1, 1)))
        sums = [values[:, i : i + 7 : 2, j : j + 7 : 2] for i in range(4) for j in range(4)]
        return (sum(sums) % 2 == 1)[..., None]


def test_bits_that_see_the_mask_are_not_known():
    rng = np.random.default_rng(3)
    images, fillings = (rng.integers(0, 256, (n, 8, 8, 1), np.uint8) for n in (20, 8))
    mask = np.broadcast_to(MASK, (20, 8, 8))  # from row 5 and column 4 on
    codes, known = known_code(object.__new__(Parity), images, mask, fillings)
    sees = np.zeros((4, 4), bool)
    sees[2:, 1:] = True  # with one pixel around: rows from 4, columns from 3
    assert known[:, ~sees].all()
    assert np.array_equal(codes[:, ~sees], Parity.encode(None, images)[:, ~sees])
    assert not known[:, sees].any()


def test_paste():
    black, white = np.zeros((1, 5, 5, 1), np.uint8), np.ones((1, 5, 5, 1), np.float32)
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 2, 2] = True
    row = paste(black, white, mask, 1)[0, 2, :, 0]
    np.testing.assert_allclose(row, [0, 0.5, 1, 0.5, 0])
    np.testing.assert_allclose(paste(black, white, mask, 0)[0, 2, :, 0], [0, 0, 1, 0, 0])


def test_strength(model):
    codes = model.encode(IMAGES)
    assert np.array_equal(model.edit(codes, start=0.0, **FEW), codes)
    fresh, other = (model.edit(c, start=1.0, **FEW) for c in (codes, ~codes))
    near = model.edit(codes, start=0.1, **FEW)
    assert (near != codes).mean() < (fresh != codes).mean()
    assert not np.array_equal(fresh, other)  # the same noise flips another code: as random, but not the same


def test_a_picture_is_continued_on_a_larger_canvas(model):
    made = outpaint(model, IMAGES, (0, 3, 2, 4), feather=0, **FEW)
    assert made.images.shape == (3, 10, 15, 1)
    assert np.array_equal(to_uint8(made.images)[:, :8, 3:11], IMAGES)
    assert made.codes.shape == (3, 5, 8, 4)


def test_larger_canvases_are_sampled(model):
    made = sample_canvas(model, 9, 20, num=2, **FEW)
    assert made.shape == (2, 9, 20, 1)
    assert not np.array_equal(made[0], made[1])


def test_a_canvas_of_windows_that_are_alike(model):
    """What has been encoded and decoded window by window is, window by window, what the network gives."""
    wide = np.concatenate([IMAGES[:1]] * 2, axis=2)
    codes = model.encode(wide)
    assert codes.shape == (1, 4, 8, 4)
    np.testing.assert_array_equal(codes[:, :, 0], model.encode(IMAGES[:1])[:, :, 0])  # of one window alone
    np.testing.assert_allclose(model.decode(codes)[:, :, 0], model.decode(codes[:, :, :4])[:, :, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: inpaint(m, IMAGES, MASK.astype(np.uint8)), "the mask is uint8"),
        (lambda m: inpaint(m, IMAGES, MASK[:4]), r"the mask is bool (4, 8)"),
        (lambda m: inpaint(m, IMAGES, MASK & False), "the mask is empty"),
        (lambda m: inpaint(m, IMAGES, MASK | True), "covers a whole image"),
        (lambda m: outpaint(m, IMAGES[0], (0, 0, 0, 4)), "(b, h, w, c) is expected"),
        (lambda m: sample_canvas(m, -64, -64), "a canvas of -64×-64 pixels"),
        (lambda m: m.edit(m.encode(IMAGES), clamp="x"), "clamp is 'x': noised or code is expected"),
        (lambda m: inpaint(m, IMAGES, MASK, feather=-1), "feather is -1"),
        (lambda m: inpaint(m, IMAGES[:, :7], MASK[:7]), "larger multiples of 2 pixels"),
        (lambda m: inpaint(m, IMAGES, MASK, passes=0), "passes is 0"),
        (lambda m: outpaint(m, IMAGES, (0, 0, 0, 0)), "margins are (0, 0, 0, 0)"),
        (lambda m: outpaint(m, IMAGES, (0, -1, 0, 4)), "margins are (0, -1, 0, 4)"),
        (lambda m: outpaint(m, IMAGES, (0, 0, 0, 10**9)), "at most 16,777,216 pixels"),
        (lambda m: sample_canvas(m, 4, 16), "codes of shape"),
        (lambda m: m.edit(m.encode(IMAGES), start=-0.1), "start is -0.1"),
    ],
)
def test_wrong_input_is_named(model, call, message):
    with pytest.raises(UserError) as error:
        call(model)
    assert message in str(error.value)


def test_a_box_covers_the_pixels_that_it_touches():
    assert box("0,0.25,0.5,0.75", (4, 4)).tolist() == [[False, True, True, False]] * 2 + [[False] * 4] * 2
    assert box("0.3,0.3,0.31,0.31", (4, 4)).sum() == 1
    edges = box("0.25,0.5,0.5,0.75", (4, 8))  # pixels that it only borders on are out
    assert np.argwhere(edges).tolist() == [[1, 4], [1, 5]]
    assert box("0,0,1,1", (3, 2)).all()
    for wrong in ("1,2,3", "0.5,0,0.5,1", "a,b,c,d", "0,0,1,1.1", "0,0,1.1,1", "-0.1,0,1,1", "0,-0.1,1,1", "0,1,1,1"):
        with pytest.raises(ValueError, match="expected"):
            box(wrong, (4, 4))
