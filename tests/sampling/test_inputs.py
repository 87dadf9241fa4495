"""Arrays and numbers that people hand to a model."""

import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.sampling import inputs

IMAGES, CODES = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 1, 1, 3), bool)


def test_what_fits_is_taken_as_it_is():
    assert inputs.check_images(IMAGES, (4, 4, 1)) is IMAGES
    for edge in (0.0, 1.0):
        assert inputs.check_images(np.full((1, 4, 4, 1), edge, np.float16), (4, 4, 1)).dtype == np.float16
    assert inputs.check_images([[[[0.5]]]], (1, 1, 1)).tolist() == [[[[0.5]]]]
    assert inputs.check_codes(CODES, (1, 1, 3)) is CODES
    assert inputs.check_codes(CODES.tolist(), (1, 1, 3)).dtype == bool
    assert inputs.check_known(CODES.tolist(), CODES).dtype == bool
    assert inputs.check_known(None, CODES) is None
    known = np.ones(CODES.shape, bool)
    assert inputs.check_known(known, CODES) is known
    assert inputs.check_times(0.5, 3).tolist() == [0.5] * 3
    assert inputs.check_times([0, 1], 2).tolist() == [0, 1]
    assert inputs.check_times(0.5, 3).dtype == np.float32
    assert [inputs.check_count("n", n, least=0, most=3) for n in (0, np.int8(3))] == [0, 3]
    assert inputs.check_count("n", 2**32) == 2**32
    assert inputs.check_count("n", 1) == 1


def test_canvases_are_larger_by_whole_tokens():
    assert inputs.check_images(np.zeros((1, 8, 4, 1)), (4, 4, 1), 4).shape == (1, 8, 4, 1)
    assert inputs.check_codes(np.zeros((1, 2, 3, 3), bool), (2, 2, 3), canvas=True).shape == (1, 2, 3, 3)
    for height, width in ((6, 8), (8, 6), (4, 8), (8, 4)):
        with pytest.raises(UserError, match=r"takes \(b, 8, 8, 1\), or larger multiples of 4 pixels"):
            inputs.check_images(np.zeros((1, height, width, 1)), (8, 8, 1), 4)
    with pytest.raises(UserError, match="is expected"):
        inputs.check_codes(np.zeros((1, 2, 1, 3), bool), (2, 2, 3), canvas=True)
    with pytest.raises(UserError, match="is expected"):
        inputs.check_codes(np.zeros((1, 2, 3, 3), bool), (2, 2, 3))


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (
            lambda: inputs.check_images(IMAGES[0], (4, 4, 1)),
            r"shape \(4, 4, 1\) given; this model takes \(b, 4, 4, 1\)",
        ),
        (lambda: inputs.check_images(IMAGES, (4, 4, 3)), "this model takes"),
        (lambda: inputs.check_images(IMAGES[:0], (4, 4, 1)), "at least one image"),
        (lambda: inputs.check_images(IMAGES.astype(np.int32), (4, 4, 1)), "type int32 given"),
        (lambda: inputs.check_images(IMAGES - 0.1, (4, 4, 1)), r"float in \[0, 1\]"),
        (lambda: inputs.check_images(IMAGES + 1.1, (4, 4, 1)), r"float in \[0, 1\]"),
        (lambda: inputs.check_images(IMAGES + np.nan, (4, 4, 1)), "without NaN"),
        (lambda: inputs.check_codes(CODES[0], (1, 1, 3)), r"bool \(b, 1, 1, 3\) is expected"),
        (lambda: inputs.check_codes(CODES, (1, 1, 2)), "is expected"),
        (lambda: inputs.check_codes(CODES.astype(np.uint8), (1, 1, 3)), "type uint8"),
        (lambda: inputs.check_codes(CODES[:0], (1, 1, 3)), "at least one code"),
        (lambda: inputs.check_known(CODES[:1], CODES), "known is bool"),
        (lambda: inputs.check_known(CODES.astype(int), CODES), "known is int64"),
        (lambda: inputs.check_times([0.5, 0.5], 3), "one for each of 3 codes"),
        (lambda: inputs.check_times("soon", 3), "one for each of 3 codes"),
        (lambda: inputs.check_times({}, 3), "one for each of 3 codes"),
        (lambda: inputs.check_times(-0.1, 1), r"times in \[0, 1\]"),
        (lambda: inputs.check_times(1.1, 1), r"times in \[0, 1\]"),
        (lambda: inputs.check_times(np.nan, 1), r"times in \[0, 1\]"),
        (lambda: inputs.check_count("num", 0), "num is 0: an integer of at least 1 is expected"),
        (lambda: inputs.check_count("num", 5, least=2, most=4), "num is 5: an integer from 2 to 4 is expected"),
        (lambda: inputs.check_count("num", 2**32 + 1), "of at least 1 is expected"),
        (lambda: inputs.check_count("num", 2.0), "num is 2.0"),
        (lambda: inputs.check_count("num", True), "num is True"),
    ],
)
def test_what_does_not_fit_is_named(check, words):
    with pytest.raises(UserError, match=words):
        check()
