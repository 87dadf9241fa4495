import numpy as np
import pytest

from binlatent.machines.seams import every, inside, lines, mask_edge, ratio, window_edges, without
from binlatent.sampling.windows import Windows


def test_ratio():
    images = np.zeros((1, 4, 6, 1))
    images[:, :, 3:] = 0.5  # a step between columns 2 and 3, and between rows 1 and 2 a smaller one
    images[:, 2:] += 0.25
    step, other = lines((4, 6), [], [3]), lines((4, 6), [2], [])
    assert ratio(images, step, other) == 2
    assert ratio(images, step, without(every((4, 6)), step)) == pytest.approx(0.5 / (6 * 0.25 / (3 * 6 + 4 * 4)))


def test_edges():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:] = True
    rows, columns = mask_edge(mask)
    assert rows.tolist() == [[False, True, True, True], [False] * 4, [False, True, True, True]]
    assert columns.tolist() == [[False] * 3, [True, False, False], [True, False, False], [False] * 3]
    assert [pairs.sum() for pairs in inside(mask)] == [3, 4]
    rows, columns = window_edges(Windows(size=(2, 4), canvas=(2, 7)), 2)  # windows at tokens 0, 2 and 3
    assert not rows.any() and np.flatnonzero(columns[0]).tolist() == [3, 5, 7, 11]  # edges at tokens 2, 3, 4 and 6
