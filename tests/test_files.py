import os

import ml_dtypes
import numpy as np
import pytest

from binlatent.files import atomic, cache_directory, digest, load_cached, store_cached, write_atomic


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_file_that_is_interrupted_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        with open(temporary, "w") as file:
            file.write("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]
    write_atomic(path, b"new")
    assert path.read_text() == "new"


def test_cached_arrays_come_back_for_their_key_and_version(caplog):
    assert load_cached("list", "a", 1) is None
    store_cached("list", "a", 1, {"x": np.arange(3)})
    np.testing.assert_array_equal(load_cached("list", "a", 1)["x"], [0, 1, 2])
    assert load_cached("list", "a", 2) is load_cached("list", "b", 1) is None
    (file,) = cache_directory().iterdir()
    file.write_bytes(b"PK\x03\x04 damaged")
    assert load_cached("list", "a", 1) is None
    assert "cannot be read" in caplog.text


def test_digest_separates_its_parts():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(np.zeros(4, np.uint8)) != digest(np.zeros((2, 2), np.uint8))
    assert digest(np.zeros(2, np.float16)) != digest(np.zeros(2, ml_dtypes.bfloat16))
    assert digest(np.arange(4)[::2]) == digest(np.array([0, 2]))
    assert digest(np.zeros((0, 3))) == digest(np.zeros((0, 3)))
