import contextlib
import json
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from binlatent import bits
from binlatent.data import codes as codes_module
from binlatent.data.codes import CodeSource, CodeWriter, code_columns
from binlatent.data.loader import eval_batches, train_batches
from binlatent.data.manifest import CodeSpec, Manifest
from binlatent.data.options import CodeOptions, DataOptions
from binlatent.errors import UserError

SHAPE = (2, 3, 5)  # 30 bits: the last byte is not full
SPEC = {"autoencoder": "aaaa", "data": "dddd", "code_shape": SHAPE}
EXAMPLES = {"train": 23, "validation": 5}
OPTIONS = DataOptions(resolution=8)


def code(split, index, view=0):
    """A code of one example, bool (y, x, k)."""
    return np.random.default_rng([len(split), index, view]).random(SHAPE) < 0.5


def captions(index):
    """Two captions each, one of which every image shares with others."""
    return f"a picture of {index % 3}\nnumber {index}"


def columns(spec, split, start, limit):
    span = range(start, start + limit)
    rows = {"code": np.asarray(bits.pack(jnp.stack([code(split, i) for i in span])))}
    if spec.count > 1:
        views = np.stack([[code(split, i, view) for view in range(1, spec.count)] for i in span])
        rows["views"] = np.packbits(views.reshape(*views.shape[:2], -1), axis=-1)
    if spec.num_classes:
        rows["label"] = np.arange(start, start + limit) % spec.num_classes
    if spec.condition_shape:
        rows["condition"] = np.stack([np.full(spec.condition_shape, i) for i in span])
    if spec.captions:
        rows["caption"] = np.array([captions(i) for i in span])
    return rows


def writer(directory, **changes):
    spec = CodeSpec(**{**SPEC, **changes})
    return CodeWriter(directory, spec, examples=EXAMPLES, shard_size=8), spec


def write(out, spec, places):
    for split, index in places:
        start, limit = out.span(split, index)
        with out.shard(split, index) as add:
            for first in range(start, start + limit, 3):
                add(**columns(spec, split, first, min(3, start + limit - first)))


def encoded(directory, **changes):
    out, spec = writer(directory, **changes)
    write(out, spec, out.missing())
    return out.finish()


def test_codes_and_their_columns_round_trip(tmp_path):
    manifest = encoded(tmp_path, num_classes=4, class_names=tuple("abcd"), condition_shape=(2, 3), flips=True, views=2)
    assert Manifest.load(tmp_path) == manifest
    assert (manifest.count("train"), manifest.count("validation")) == (23, 5)
    for split, count in EXAMPLES.items():
        source = CodeSource(tmp_path, split, expected_fingerprint="aaaa", expected_data="dddd")
        assert len(source) == count
        for i in range(count):
            example = source[i]
            stored = bits.unpack(jnp.array([example["code"], *example["views"]]), SHAPE)
            np.testing.assert_array_equal(stored, [code(split, i, view) for view in range(4)])
            assert example["label"] == i % 4 and example["label"].dtype == np.int32
            assert example["condition"].shape == (2, 3) and example["condition"][0, 0] == i


def test_captions_are_stored_once_and_one_is_drawn_at_every_step(tmp_path):
    encoded(tmp_path, captions=True, num_classes=100, class_names=tuple(map(str, range(100))))
    source = CodeSource(tmp_path, "train")
    assert sorted(source.captions) == sorted({line for i in range(23) for line in captions(i).split("\n")})
    stored = json.loads((tmp_path / "train-00000-of-00003.captions").read_text())
    assert len(stored["captions"]) == len(set(stored["captions"])) == 3 + 8 and len(stored["sets"]) == 8
    for i in range(23):
        assert "\n".join(source.captions[j] for j in source[i]["caption"]) == captions(i)
    batches = train_batches(source, OPTIONS, seed=0, batch_size=23)
    drawn = []
    for batch in (next(batches) for _ in range(6)):
        assert batch["caption"].shape == (23,) and batch["caption"].dtype == np.int32
        texts = {int(i): source.captions[j] for i, j in zip(batch["label"], batch["caption"], strict=True)}
        assert all(text in captions(i).split("\n") for i, text in texts.items())
        drawn.append(tuple(texts[i] for i in range(23)))
    assert len(set(drawn)) == 6
    assert 30 < sum(text.startswith("number") for epoch in drawn for text in epoch) < 108
    for batch in eval_batches(source, OPTIONS, batch_size=8):
        for i, j in zip(batch["label"], batch["caption"], strict=True):
            assert source.captions[j] == captions(int(i)).split("\n")[0]


def test_each_distinct_embedding_is_stored_once_as_float16(tmp_path):
    out, spec = writer(tmp_path, condition_shape=(7, 3))
    with out.shard("train", 0) as add:
        for first in range(0, 8, 4):
            rows = columns(spec, "train", first, 4)
            add(**rows | {"condition": np.stack([np.full((7, 3), i % 2 + 0.1) for i in range(4)])})
    write(out, spec, out.missing())
    out.finish()
    assert (tmp_path / "train-00000-of-00003.conditions").stat().st_size == 2 * 7 * 3 * 2
    condition = CodeSource(tmp_path, "train")[3]["condition"]
    assert condition.dtype == np.float32 and (condition == np.float16(1.1)).all()


@pytest.mark.parametrize("table", ["conditions", "captions"])
def test_a_damaged_or_missing_table_is_found(tmp_path, table):
    encoded(tmp_path, captions=True, condition_shape=(3,))
    path = tmp_path / f"train-00001-of-00003.{table}"
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(UserError, match=rf"{path.name}: its checksum differs"):
        CodeSource(tmp_path, "train")
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}: this shard of codes is missing"):
        CodeSource(tmp_path, "train")
    out, _ = writer(tmp_path, captions=True, condition_shape=(3,))
    assert out.missing() == [("train", 1)]


def test_columns_of_the_unmasked_examples_of_a_batch():
    spec = CodeSpec(**SPEC, num_classes=2, class_names=("a", "b"), captions=True)
    batch = {
        "image": np.zeros((3, 8, 8, 3)), "label": np.arange(3), "condition": np.ones((3, 2)),
        "caption": np.array(["a", "b", "c"]), "mask": np.array([True, False, True]),
    }  # fmt: skip
    columns = code_columns(batch, spec)
    assert columns.keys() == {"label", "caption"}
    assert columns["caption"].tolist() == ["a", "c"]


def test_batches_of_codes_use_the_same_loader(tmp_path):
    encoded(tmp_path, num_classes=4, class_names=tuple("abcd"))
    source = CodeSource(tmp_path, "train")
    batch = next(train_batches(source, OPTIONS, seed=0, batch_size=8))
    assert batch.keys() == {"code", "label"}
    assert batch["code"].shape == (8, 4) and batch["code"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    seen = [b["label"][b["mask"]] for b in eval_batches(source, OPTIONS, batch_size=8)]
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(23) % 4)


def test_one_of_all_codes_is_drawn_anew_every_epoch_in_training_and_the_first_one_in_evaluation(tmp_path):
    encoded(tmp_path, flips=True, num_classes=100, class_names=tuple(map(str, range(100))))
    source = CodeSource(tmp_path, "train")
    batches = train_batches(source, OPTIONS, seed=0, batch_size=23)
    flips = []
    for _ in range(4):
        batch = next(batches)
        assert "views" not in batch
        plain = np.stack([source.read(int(i))["code"] for i in batch["label"]])
        mirrored = np.stack([source.read(int(i))["views"][0] for i in batch["label"]])
        chosen = (batch["code"] == mirrored).all(1)
        assert (chosen | (batch["code"] == plain).all(1)).all()
        flips.append(dict(zip(batch["label"].tolist(), chosen.tolist(), strict=True)))
    assert 20 < sum(sum(epoch.values()) for epoch in flips) < 72
    assert len({tuple(sorted(epoch.items())) for epoch in flips}) == 4
    for batch in eval_batches(source, OPTIONS, batch_size=8):
        for row in np.flatnonzero(batch["mask"]):
            np.testing.assert_array_equal(batch["code"][row], source.read(int(batch["label"][row]))["code"])


def test_several_processes_write_shards_of_their_own(tmp_path):
    for process, own in enumerate([[("train", 0), ("validation", 0)], [("train", 1)], [("train", 2)]]):
        out, spec = writer(tmp_path)
        assert out.missing(process, 3) == own  # whatever the others have finished
        write(out, spec, own)
    assert out.finish().count("train") == 23


def test_an_interrupted_encode_continues_where_it_stopped(tmp_path):
    out, spec = writer(tmp_path)
    write(out, spec, [("train", 1)])
    with pytest.raises(KeyboardInterrupt), out.shard("train", 0) as add:
        add(**columns(spec, "train", 0, 3))
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == ["train-00001-of-00003.arrayrecord", "train-00001-of-00003.json"]
    again, _ = writer(tmp_path)
    assert again.missing() == [("train", 0), ("train", 2), ("validation", 0)]
    with pytest.raises(UserError, match=r"3 of 4 shards .* missing, the first is train-00000-of-00003"):
        again.finish()
    with pytest.raises(UserError, match=r"no finished codes here .*run `binlatent encode`"):
        CodeSource(tmp_path, "train")
    write(again, spec, again.missing())
    again.finish()
    assert len(CodeSource(tmp_path, "train")) == 23


@pytest.mark.parametrize("change", [{"autoencoder": "bbbb"}, {"data": "eeee"}, {"flips": True}, {"views": 3}])
def test_shards_of_another_encode_are_written_again(tmp_path, change):
    encoded(tmp_path)
    out, spec = writer(tmp_path, **change)
    assert len(out.missing()) == 4
    write(out, spec, out.missing())
    out.finish()
    CodeSource(tmp_path, "train", expected_fingerprint=spec.autoencoder, expected_data=spec.data)


def test_a_truncated_shard_or_one_without_its_note_is_written_again(tmp_path):
    encoded(tmp_path)
    out, _ = writer(tmp_path)
    assert out.missing() == []
    (tmp_path / "train-00000-of-00003.json").unlink()
    (tmp_path / "train-00001-of-00003.json").write_text('{"identity": "x')
    shard = tmp_path / "train-00002-of-00003.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert out.missing() == [("train", 0), ("train", 1), ("train", 2)]


def test_shards_left_by_another_shard_size_are_removed(tmp_path):
    encoded(tmp_path)
    spec = CodeSpec(**SPEC)
    out = CodeWriter(tmp_path, spec, examples=EXAMPLES, shard_size=100)
    write(out, spec, out.missing())
    out.finish()
    assert len(list(tmp_path.glob("*.arrayrecord"))) == 2
    assert len(CodeSource(tmp_path, "train")) == 23


def test_unreadable_images_make_fewer_codes(tmp_path):
    out, spec = writer(tmp_path)
    for split, index in out.missing():
        start, limit = out.span(split, index)
        with out.shard(split, index) as add:
            add(**columns(spec, split, start, limit - 1))
    assert out.finish().count("train") == 20
    assert len(CodeSource(tmp_path, "train")) == 20


def test_codes_of_another_autoencoder_or_data_set_are_refused(tmp_path):
    encoded(tmp_path)
    with pytest.raises(
        UserError, match=r"made by autoencoder aaaa, and bbbb cannot decode.*run `binlatent encode` again"
    ):
        CodeSource(tmp_path, "train", expected_fingerprint="bbbb")
    with pytest.raises(UserError, match=r"of data set dddd, but the config describes eeee"):
        CodeSource(tmp_path, "train", expected_data="eeee")
    with pytest.raises(UserError, match=r"made with codes\.views=1, but the config says 3; run `binlatent encode`"):
        CodeSource(tmp_path, "train", expected_options=CodeOptions(views=3))
    with pytest.raises(UserError, match=r"no split 'test'; there are train, validation"):
        CodeSource(tmp_path, "test")


def test_missing_truncated_and_changed_shards_are_refused(tmp_path):
    encoded(tmp_path)
    shard = tmp_path / "train-00001-of-00003.arrayrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train-00001-of-00003.arrayrecord: \d+ bytes, but \d+ were written.*encode"):
        CodeSource(tmp_path, "train")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    shard.write_bytes(flipped)
    with pytest.raises(UserError, match=r"train-00001-of-00003.arrayrecord: its checksum differs"):
        CodeSource(tmp_path, "train")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001-of-00003.arrayrecord: this shard of codes is missing"):
        CodeSource(tmp_path, "train")
    assert len(CodeSource(tmp_path, "validation")) == 5
    shard.write_bytes(whole)
    assert len(CodeSource(tmp_path, "train")) == 23


def test_in_a_large_cache_damage_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "HASH_ON_OPEN", 0)
    encoded(tmp_path)
    shard = tmp_path / "train-00000-of-00003.arrayrecord"
    code_bytes = CodeSource(tmp_path, "train")[5]["code"].tobytes()
    data = bytearray(shard.read_bytes())
    data[data.index(code_bytes)] ^= 1
    shard.write_bytes(data)
    source = CodeSource(tmp_path, "train")
    with pytest.raises(UserError, match=r"code 5 cannot be read: the shard is damaged.*encode"):
        source[5]


def test_codes_of_another_version_are_named(tmp_path):
    encoded(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("binlatent codes 3", "binlatent codes 2"))
    with pytest.raises(UserError, match=r"'binlatent codes 2', expected 'binlatent codes 3': another version.*encode"):
        CodeSource(tmp_path, "train")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(content, prefix=()):
    """The path to every value in JSON data."""
    yield prefix
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*prefix, key))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_manifest_is_read_or_refused(tmp_path, data):
    path = tmp_path / "manifest.json"
    if not path.exists():
        encoded(
            tmp_path, captions=True, condition_shape=(3,), num_classes=2, class_names=("a", "b"), views=2, flips=True
        )
        (tmp_path / "good").write_bytes(path.read_bytes())
    good = json.loads((tmp_path / "good").read_text())
    *way, last = data.draw(st.sampled_from([place for place in places(good) if place]))
    target = good
    for key in way:
        target = target[key]
    if data.draw(st.booleans()):
        target[last] = data.draw(JSON)
    elif isinstance(target, dict):
        del target[last]
    text = json.dumps(good).encode()
    path.write_bytes(data.draw(st.sampled_from([text, text[: len(text) // 2], b"\xff" + text, b"[" * 100_000])))
    try:
        source = CodeSource(tmp_path, "train")
    except UserError as error:
        assert str(tmp_path) in str(error)
    else:
        for i in range(len(source)):
            with contextlib.suppress(UserError):
                source[i]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"format": "other"})])
def test_an_unreadable_manifest_is_refused(tmp_path, content):
    encoded(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest.json cannot be read .*run `binlatent encode` again"):
        CodeSource(tmp_path, "train")


def test_rows_of_the_wrong_shape_are_value_errors(tmp_path):
    out, spec = writer(tmp_path, num_classes=2, class_names=("a", "b"))
    rows = columns(spec, "train", 0, 3)
    for wrong, message in [
        ({"code": rows["code"]}, r"columns are \['code'\]"),
        ({**rows, "code": rows["code"][:, :-1]}, r"code: shape \(3, 3\), expected \(3, 4\)"),
        ({**rows, "label": rows["label"][:2]}, r"label: shape \(2,\), expected \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message), out.shard("train", 0) as add:
            add(**wrong)


def test_a_source_of_codes_can_be_sent_to_workers(tmp_path):
    encoded(tmp_path)
    source = CodeSource(tmp_path, "train")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[7]["code"], source[7]["code"])
