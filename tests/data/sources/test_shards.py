import io
import pickle
import tarfile

import numpy as np
import PIL.Image
import pytest

from binlatent.data.loader import eval_batches, train_batches
from binlatent.data.options import DataOptions
from binlatent.data.sources import shards as shards_module
from binlatent.data.splits import open_splits
from binlatent.errors import UserError


def png(value):
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "png")
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path):
    """Three tar files of 10 images each, with classes and embeddings."""
    root = tmp_path / "tars"
    root.mkdir()
    for t, name in enumerate(("train-0", "train-1", "val-0")):
        members = []
        for i in range(10 * t, 10 * t + 10):
            array = io.BytesIO()
            np.save(array, np.full(3, i, np.float16))
            members += [(f"{i:04d}.png", png(i)), (f"{i:04d}.cls", b"%d" % (i % 4)), (f"{i:04d}.npy", array.getvalue())]
        write_tar(root / f"{name}.tar", members)
    return root


def opened(path, **options):
    return open_splits(DataOptions(**{"source": "shards", "path": str(path), "resolution": 8, **options}), seed=0)


def content(source):
    examples = [source[i] for i in range(len(source))]
    values = [int(example["image"][0, 0, 0]) for example in examples]
    assert all(example["label"] == v % 4 for example, v in zip(examples, values, strict=True))
    assert all((example["condition"] == v).all() for example, v in zip(examples, values, strict=True))
    assert len(set(values)) == len(values)
    return set(values)


def test_images_classes_and_embeddings_by_rule(tars):
    splits = opened(tars, embeddings="npy")
    assert splits.num_classes == 4
    assert splits.condition_shape == (3,)
    assert content(splits.train) | content(splits.validation) == set(
        range(20)
    )  # of files whose names begin with `train`
    every = opened(tars, embeddings="npy", split="")
    assert content(every.train) | content(every.validation) == set(range(30))
    with pytest.raises(UserError, match=r"data.split='test': no .tar file in .* begins with it"):
        opened(tars, split="test")


def test_captions_of_the_members(tmp_path, caplog):
    write_tar(
        tmp_path / "a.tar",
        [(f"{i}.png", png(i)) for i in range(9)]
        + [(f"{i}.txt", f"a café\n\nnumber {i}".encode() if i != 4 else b" \n") for i in range(9)],
    )
    splits = opened(tmp_path, captions="txt")
    for _ in range(2):  # from the headers, then from the cache
        examples = [
            part[i]
            for part in (splits.train, splits.validation)
            for i in range(len(part))
            if part[i] and part.counted(i)
        ]
        assert {e["caption"] for e in examples} == {("a café", f"number {i}") for i in range(9) if i != 4}
        assert all(e["caption"][1] == f"number {e['image'][0, 0, 0]}" for e in examples)
        splits = opened(tmp_path, captions="txt")
    assert "a.tar, 4: the caption is empty" in caplog.text
    assert "caption" not in opened(tmp_path).train[0]
    assert opened(tmp_path).fingerprint != splits.fingerprint


def test_splits_by_the_names_of_the_files(tars):
    splits = opened(tars, embeddings="npy", validation_split="val")
    assert content(splits.train) == set(range(20))
    assert content(splits.validation) == set(range(20, 30))
    with pytest.raises(UserError, match=r"'train' and .*'train-1' name the same"):
        opened(tars, validation_split="train-1")
    with pytest.raises(UserError, match=r"validation split is empty"):
        opened(tars, validation_split="test")


def test_a_class_that_no_training_image_has(tars):
    write_tar(tars / "val-1.tar", [("x.png", png(1)), ("x.cls", b"7")])
    with pytest.raises(
        UserError, match=r"1 validation images have a class beyond 3, the largest of the training images"
    ):
        opened(tars, validation_split="val")
    assert opened(tars, split="").num_classes == 8


def test_batches_and_workers(tars):
    options = DataOptions(source="shards", path=str(tars), resolution=8)
    splits = open_splits(options, seed=0)
    batch = next(train_batches(splits.train, options, seed=0, batch_size=8))
    assert batch["image"].shape == (8, 8, 8, 3)
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(splits.train))[4]["image"], splits.train[4]["image"])


def test_headers_are_read_once_and_again_after_a_change(tars, monkeypatch):
    calls = []
    headers = shards_module._headers
    monkeypatch.setattr(shards_module, "_headers", lambda number, path: calls.append(path) or headers(number, path))
    first, second = opened(tars), opened(tars)
    assert len(calls) == 2
    assert first.fingerprint == second.fingerprint
    write_tar(tars / "train-2.tar", [("a.png", png(99)), ("a.cls", b"0")])
    third = opened(tars)
    assert len(third.train) + len(third.validation) == 21
    assert third.fingerprint != first.fingerprint


def test_a_broken_image_is_named_and_skipped(tmp_path, caplog):
    write_tar(tmp_path / "a.tar", [(f"{i}.png", png(i) if i != 3 else png(i)[:40]) for i in range(10)])
    options = DataOptions(source="shards", path=str(tmp_path), resolution=8)
    splits = open_splits(options, seed=0)
    parts = (splits.train, splits.validation)
    assert sum(batch["mask"].sum() for part in parts for batch in eval_batches(part, options, batch_size=4)) == 9
    assert caplog.text.count("a.tar, 3") == 1


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([("a.txt", b"x")], {}, r"no images \(jpg"),
        ([("a.png", png(1)), ("a.cls", b"1"), ("b.png", png(2))], {}, r"1 of 2 images have no \.cls .* b;"),
        ([("a.png", png(1)), ("b.png", png(2))], {"embeddings": "npy"}, r"2 of 2 images have no \.npy"),
        (
            [("a.png", png(1)), ("a.cls", b"99999999999")],
            {},
            r"a\.cls holds 99999999999; classes are numbered from 0 to at most 999,999",
        ),
        (
            [("a.png", png(1)), ("a.cls", b"cat")],
            {},
            r"a\.tar: not a complete.*a\.cls holds b'cat'; a class number",
        ),
        (
            [("a.png", png(1)), ("b.png", png(2)), ("b.txt", b"x")],
            {"captions": "txt"},
            r"1 of 2 images have no \.txt .* a;",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, members, options, message):
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, **options)


def test_folders_and_files_that_are_not_tar(tmp_path, tars):
    with pytest.raises(UserError, match=r"nowhere': no such folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no \.tar files"):
        opened(tmp_path / "none")
    whole = (tars / "train-1.tar").read_bytes()
    (tars / "train-1.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UserError, match=r"train-1\.tar: not a complete"):
        opened(tars)
    (tars / "train-1.tar").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"train-1\.tar: not a complete"):
        opened(tars)
