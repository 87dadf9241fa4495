import numpy as np
import pytest

from binlatent.sampling.grid import time_grid


def test_grid():
    np.testing.assert_allclose(time_grid(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(2, start=0.5), [0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(1), [1, 0])


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        (0, {}, "steps is 0"),
        (1, {"start": 0.0}, "start is 0.0"),
        (1, {"start": 1.1}, "start is 1.1"),
    ],
)
def test_values_out_of_range(steps, options, words):
    with pytest.raises(ValueError, match=words):
        time_grid(steps, **options)
