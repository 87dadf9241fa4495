"""Captions encoded once and looked up by number."""

import numpy as np
import pytest

from binlatent.data.texts import encoded_rows
from binlatent.errors import UserError
from binlatent.text.named import open_encoder
from binlatent.text.options import TextOptions
from tests.text.test_user import GOOD, write

CAPTIONS = [" ".join("word" * (i % 3 + 1) for _ in range(i % 5 + 1)) for i in range(40)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("use", ["tokens", "pooled"])
def test_features_come_back_from_disk_as_they_were_made(tmp_path, monkeypatch, use):
    monkeypatch.setattr("binlatent.data.texts.CHUNK", 7)
    encoder = open_encoder(TextOptions(encoder=write(tmp_path, GOOD), use=use))
    rows, made = encoded_rows(encoder, CAPTIONS), encoder.encode(CAPTIONS)
    for i in (0, 6, 7, 39):
        row = rows[i]
        assert set(row) == ({"tokens", "token_mask", "vector"} if use == "tokens" else {"vector"})
        assert np.array_equal(row["vector"], made.vector[i])
        if use == "tokens":
            assert np.array_equal(row["token_mask"], made.mask[i])
            assert np.array_equal(row["tokens"][made.mask[i]], made.tokens[i][made.mask[i]])
            assert not row["tokens"][~made.mask[i]].any()


def test_captions_are_encoded_once(tmp_path, monkeypatch):
    encoder = open_encoder(TextOptions(encoder=write(tmp_path, GOOD)))
    calls, encode = [], encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda captions: calls.append(len(captions)) or encode(captions))
    first, again = encoded_rows(encoder, CAPTIONS), encoded_rows(encoder, CAPTIONS)
    assert calls == [40]
    assert np.array_equal(first[3]["tokens"], again[3]["tokens"])
    encoded_rows(encoder, CAPTIONS[1:])
    assert calls == [40, 39]


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("binlatent.data.texts.CHUNK", 10)
    encoder = open_encoder(TextOptions(encoder=write(tmp_path, GOOD)))
    calls, encode = [], encoder.encode

    def interrupted(captions):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return calls.append(len(captions)) or encode(captions)

    monkeypatch.setattr(encoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoded_rows(encoder, CAPTIONS)
    calls.clear()
    rows, made = encoded_rows(encoder, CAPTIONS), encode(CAPTIONS)
    assert calls == [10, 10]  # of four chunks
    assert np.array_equal(rows[3]["vector"], made.vector[3]) and np.array_equal(rows[39]["vector"], made.vector[39])
    assert not list((tmp_path / "cache").rglob("parts"))


def test_a_file_that_was_cut_short_is_told(tmp_path):
    rows = encoded_rows(open_encoder(TextOptions(encoder=write(tmp_path, GOOD))), CAPTIONS)
    (tmp_path / "cache" / "binlatent" / "text").joinpath(rows.folder, "tokens.f2").write_bytes(b"")
    with pytest.raises(UserError, match="remove its folder"):
        rows[3]


def test_words_stay_in_memory():
    encoder = open_encoder(TextOptions(), CAPTIONS)
    rows, made = encoded_rows(encoder, CAPTIONS), encoder.encode(CAPTIONS)
    for i in (0, 5, 39):
        assert np.array_equal(rows[i]["tokens"], made.tokens[i]) and np.array_equal(rows[i]["token_mask"], made.mask[i])
