"""Retrieval by the prior's bound, on bounds that are given."""

import numpy as np
import pytest

from binlatent.machines.retrieval import score


def found(bound, captions, choices=3):
    """The scores where `bound(position, prompt)` gives an image's bound."""
    return score(
        lambda given: np.array([float(bound(i, prompt)) for i, prompt in enumerate(given)]), captions, choices=choices
    )


def test_the_own_caption_is_the_one_with_the_lowest_bound():
    captions = list("abcdef")
    assert found(lambda i, prompt: 10 - 4 * (prompt == captions[i]), captions) == {"retrieval": 1.0, "gain": 4.0}
    assert found(lambda i, prompt: 10 + 4 * (prompt == captions[i]), captions) == {"retrieval": 0.0, "gain": -4.0}
    # the first of each group is the nearest to all
    half = found(lambda i, prompt: 10 - (prompt in "ad"), captions)
    assert half["retrieval"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="6 images cannot be divided into groups of 4"):
        found(lambda i, prompt: 0, captions, choices=4)


def test_an_equal_caption_is_the_own_one():
    captions = list("aabcde")
    assert found(lambda i, prompt: 10 - (prompt == "a"), captions)["retrieval"] == pytest.approx(2 / 6)
    assert found(lambda i, prompt: 10 - 3 * (prompt == captions[i]), captions) == {"retrieval": 1.0, "gain": 3.0}
