import numpy as np
import pytest

from binlatent.data.options import DataOptions
from binlatent.data.sources.captioned_digits import Canvas
from binlatent.data.splits import open_splits
from binlatent.errors import UserError


def opened(seed=0, **options):
    return open_splits(
        DataOptions(**({"source": "captioned_digits", "resolution": 16, "channels": 1, "captions": "own"} | options)),
        seed=seed,
    )


def test_sentences():
    assert Canvas(rows=((7,), (3,))).captions == ("a seven above a three", "a three below a seven")
    assert Canvas(rows=((8, 1),)).captions[0] == "an eight to the left of a one"
    assert Canvas(rows=((4, 2), (9, 0))).captions[0] == "a four and a two above a nine and a zero"


def test_digits_are_where_the_canvas_says():
    train = opened().train
    for index in range(50):
        image, canvas = train[index]["image"][..., 0], train.canvas(index)
        corners = canvas.corners(16)
        assert len(corners) == sum(len(row) for row in canvas.rows)
        covered = np.zeros((16, 16), bool)
        for y, x in corners:
            assert image[y : y + 8, x : x + 8].max() > 100
            covered[y : y + 8, x : x + 8] = True
        assert not image[~covered].any()
        assert train[index]["caption"] == canvas.captions


def test_training_never_sees_what_is_held_out():
    splits = opened()
    assert not any(splits.train.canvas(i).held_out for i in range(2000))
    assert [splits.validation.canvas(i).held_out for i in range(6)] == [True, False] * 3
    rows = [row for i in range(2000) for row in splits.train.canvas(i).rows]
    assert {row for row in rows if len(row) == 2} == {(a, b) for a in range(10) for b in range(10) if (3 * a + b) % 10}


def test_examples_depend_on_the_seed_alone():
    one, again, other = opened(), opened(), opened(seed=1)
    np.testing.assert_array_equal(one.train[5]["image"], again.train[5]["image"])
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert any((one.train[i]["image"] != other.train[i]["image"]).any() for i in range(5))


def test_larger_canvases_shift_digits():
    train = opened(resolution=24).train
    boxes = {
        tuple(np.argwhere(train[i]["image"][..., 0]).min(0)) for i in range(200) if train.canvas(i).rows[0][0] == 7
    }
    assert len(boxes) > 5


def test_invalid_options_are_named():
    with pytest.raises(UserError, match="resolution=15"):
        opened(resolution=15)
    with pytest.raises(UserError, match="validation_split='test'"):
        opened(validation_split="test")
    with pytest.raises(UserError, match="captions='txt'"):
        opened(captions="txt")
    with pytest.raises(UserError, match=r"validation_fraction=0\.001"):
        opened(validation_fraction=0.001)
