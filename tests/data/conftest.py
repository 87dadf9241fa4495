"""Small data sets on disk; nothing is kept in the user's cache directory."""

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def folder(tmp_path):
    """24 PNG images in three class folders, each of one colour that identifies it."""
    root = tmp_path / "pictures"
    for i in range(24):
        place = root / ("bird", "cat", "dog")[i % 3] / "deep" / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 8), (i * 10, 0, 0)).save(place)
    return root


@pytest.fixture
def flat(tmp_path):
    """20 PNG images in one folder."""
    root = tmp_path / "flat"
    root.mkdir()
    for i in range(20):
        PIL.Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / f"{i:02d}.png")
    return root
