import os
import time

import numpy as np
import pytest
from etils import epath

from binlatent.data.sources import index as index_module
from binlatent.data.sources.index import build_index


@pytest.fixture
def cached(monkeypatch):
    """Caches small folders too, without waiting for them to settle."""
    monkeypatch.setattr(index_module, "CACHED_FROM", 1)
    monkeypatch.setattr(index_module, "_SETTLED_NS", 0)


@pytest.fixture
def listings(monkeypatch):
    """Counts how often a folder is listed."""
    calls = []
    listing = index_module._list_local
    monkeypatch.setattr(index_module, "_list_local", lambda root: calls.append(root) or listing(root))
    return calls


def test_names_sizes_and_order(folder):
    for name in ("notes.txt", "README.TXT", "features.NPY"):
        (folder / name).write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "icon.png").write_text("x")
    (folder / "bird" / "deep" / "00.npy").write_text("x")
    index = build_index(epath.Path(folder))
    names = index.names.to_list()
    assert names == sorted(names)
    assert len(index) == len(names) == 24
    assert [index.names[i] for i in range(24)] == names
    assert all((folder / name).stat().st_size == size for name, size in zip(names, index.sizes, strict=True))
    assert [name for name, has in zip(names, index.embedded, strict=True) if has] == ["bird/deep/00.png"]


def test_a_part_of_an_index(folder):
    index = build_index(epath.Path(folder))
    mask = np.arange(24) % 5 == 0
    part = index.chosen(mask)
    assert part.names.to_list() == [index.names[i] for i in range(0, 24, 5)]
    np.testing.assert_array_equal(part.sizes, index.sizes[::5])


def test_names_that_are_not_unicode(tmp_path):
    (tmp_path / "ü 漢.png").write_text("x")
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"), "wb"):
        pass
    index = build_index(epath.Path(tmp_path))
    assert all(os.path.exists(tmp_path / name) for name in index.names.to_list())
    assert len(index) == 2


def test_a_link_back_up_does_not_loop(folder):
    (folder / "cat" / "again").symlink_to(folder)
    assert len(build_index(epath.Path(folder))) == 24


def test_a_large_folder_is_listed_once(folder, cached, listings, cache_home):
    time.sleep(0.02)
    first = build_index(epath.Path(folder))
    second = build_index(epath.Path(folder))
    assert len(listings) == 1
    assert first.names.to_list() == second.names.to_list()
    assert first.identity() == second.identity()
    assert len(list((cache_home / "binlatent").iterdir())) == 1


@pytest.mark.parametrize("change", ["add", "remove", "rename", "new class"])
def test_any_change_is_seen(folder, cached, listings, change):
    time.sleep(0.02)
    before = build_index(epath.Path(folder)).names.to_list()
    file = folder / "cat" / "deep" / "01.png"
    if change == "add":
        (folder / "cat" / "deep" / "more.png").write_bytes(file.read_bytes())
    elif change == "remove":
        file.unlink()
    elif change == "rename":
        file.rename(file.with_name("other.png"))
    else:
        (folder / "cow").mkdir()
        (folder / "cow" / "1.png").write_bytes(file.read_bytes())
    assert build_index(epath.Path(folder)).names.to_list() != before
    assert len(listings) == 2


def test_captions_that_are_rewritten_in_place_are_seen(folder, cached, listings):
    caption = folder / "cat" / "deep" / "01.txt"
    caption.write_text("a cat")
    time.sleep(0.02)
    before = build_index(epath.Path(folder)).caption_sizes
    caption.write_text("a black cat")
    after = build_index(epath.Path(folder)).caption_sizes
    assert after.max() == 11 and (before != after).sum() == 1 and len(listings) == 1


def test_a_folder_that_just_changed_is_not_cached(folder, monkeypatch, listings):
    monkeypatch.setattr(index_module, "CACHED_FROM", 1)
    build_index(epath.Path(folder))
    build_index(epath.Path(folder))
    assert len(listings) == 2


def test_small_folders_leave_nothing_behind(folder, cache_home):
    build_index(epath.Path(folder))
    assert not list(cache_home.iterdir())


def test_a_damaged_or_unwritable_cache_is_reported_and_ignored(folder, cached, listings, cache_home, caplog):
    time.sleep(0.02)
    build_index(epath.Path(folder))
    (file,) = (cache_home / "binlatent").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert len(build_index(epath.Path(folder))) == 24
    assert "cannot be read" in caplog.text
    assert len(listings) == 2
    assert len(build_index(epath.Path(folder))) == 24
    assert len(listings) == 2


def test_no_room_for_the_cache(folder, cached, tmp_path, monkeypatch, caplog):
    time.sleep(0.02)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(build_index(epath.Path(folder))) == 24
    assert "could not be cached" in caplog.text
