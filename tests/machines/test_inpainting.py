import numpy as np

import binlatent
from binlatent.machines.inpainting import complete, seam
from tests import tiny


def test_ways_to_complete(trained):
    images = tiny.images(2).astype(np.float32) / 255
    made = complete(binlatent.load(trained), images, rows=3, passes=2, steps=2, seed=0)
    assert set(made) == {"tokens", "leak", "bits", "pasted"}
    assert np.array_equal(made["pasted"][:, :5], images[:, :5])
    assert not np.array_equal(made["bits"][:, :5], images[:, :5])
    assert np.array_equal(made["pasted"][:, 5:], made["bits"][:, 5:])


def test_seam():
    images = np.zeros((1, 4, 2, 1))
    images[:, 3] = 0.5
    assert seam(images, 1) == 0.5
    assert seam(images, 2) == 0
