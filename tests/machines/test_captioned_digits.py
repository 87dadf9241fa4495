"""The score of captioned digits, on real canvases: right captions are recognised, wrong ones are not."""

import numpy as np
import pytest

from binlatent.data.options import DataOptions
from binlatent.data.sources.captioned_digits import open_captioned_digits
from binlatent.machines.captioned_digits import canvases, prompts, score_images


@pytest.mark.parametrize("resolution", [16, 20])
def test_real_canvases_are_recognised_and_others_are_not(resolution):
    options = DataOptions(source="captioned_digits", resolution=resolution, channels=1, captions="own")
    source = open_captioned_digits(options, 0).validation
    images, drawn = np.stack([source[i]["image"] for i in range(100)]), [source.canvas(i) for i in range(100)]
    right = score_images(images / 255, drawn)
    assert right["positions"] > 0.95 and right["canvases"] > 0.85 and right["outside"] < 1e-6
    wrong = score_images(images / 255, drawn[1:] + drawn[:1])
    assert wrong["positions"] < 0.35 and wrong["outside"] > 0.05


def test_captions_are_of_the_combinations_that_were_asked_for():
    for held_out in (False, True):
        drawn = canvases(50, held_out=held_out, seed=3)
        assert all(canvas.held_out == held_out for canvas in drawn)
        assert prompts(drawn)[1] == drawn[1].captions[1]
        assert drawn == canvases(50, held_out=held_out, seed=3)
