import numpy as np
import pytest

from binlatent.data.options import DataOptions
from binlatent.data.splits import open_splits
from binlatent.errors import UserError


def opened(path, **options):
    return open_splits(DataOptions(**{"source": "npz", "path": str(path), "resolution": 4, **options}), seed=0)


def test_digits_are_the_whole_set_in_full_range():
    splits = open_splits(DataOptions(resolution=8, channels=1), seed=0)
    assert len(splits.train) + len(splits.validation) == 1797
    assert splits.num_classes == 10
    assert splits.class_names == tuple("0123456789")
    examples = [splits.train[i] for i in range(len(splits.train))]
    images = np.stack([example["image"] for example in examples])
    assert images.shape[1:] == (8, 8, 1)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    assert {int(example["label"]) for example in examples} == set(range(10))
    assert examples[0]["label"].dtype == np.int32


def test_labels_can_be_ignored():
    splits = open_splits(DataOptions(resolution=8, channels=1, labels=False), seed=0)
    assert splits.num_classes == 0
    assert splits.class_names == ()
    assert set(splits.train[0]) == {"image"}


def test_npz_with_labels_and_conditions(tmp_path):
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(40) % 3, condition=np.ones((40, 2, 5), np.float64))
    splits = opened(tmp_path / "a.npz", embeddings="npy")
    assert splits.num_classes == 3
    assert splits.condition_shape == (2, 5)
    example = splits.validation[0]
    assert example["image"].shape == (4, 4, 1)
    assert example["label"] == example["image"][0, 0, 0] % 3
    assert example["condition"].dtype == np.float32


def test_npz_with_captions(tmp_path):
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    words = np.array([[f"number {i}", f"  i is\n{i} " if i % 2 else ""] for i in range(20)])
    np.savez(tmp_path / "a.npz", images=images, words=words, numbers=np.arange(20), few=words[:19], empty=words[:, 1])
    example = opened(tmp_path / "a.npz", captions="words").train[3]
    i = example["image"][0, 0, 0]
    assert example["caption"] == ((f"number {i}", f"i is {i}") if i % 2 else (f"number {i}",))
    for name, message in [
        ("other", r"needs an array other of 20 rows of strings.*no such array"),
        ("numbers", r"found int64 \(20,\)"),
        ("few", r"found <U\d+ \(19, 2\)"),
        ("empty", r"10 of 20 images have no caption in empty, the first is 0"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(tmp_path / "a.npz", captions=name)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 70000.0])
def test_npz_embeddings_that_are_not_finite_are_refused(tmp_path, value):
    condition = np.ones((20, 3))
    condition[4, 1] = value
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 4, 4), np.uint8), condition=condition)
    with pytest.raises(UserError, match=r"1 of 60 values are NaN, infinite or above 65504"):
        opened(tmp_path / "a.npz", embeddings="npy")


def test_npz_embeddings_of_too_many_axes_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 4, 4), np.uint8), condition=np.ones((20, 1, 5, 3)))
    with pytest.raises(UserError, match=r"first embedding has shape \(1, 5, 3\).*np\.squeeze"):
        opened(tmp_path / "a.npz", embeddings="npy")


def test_npz_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((10, 4, 4, 3), np.uint8))
    assert opened(tmp_path / "a.npz").num_classes == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((10, 4, 4, 3))}, "float64, expected uint8"),
        ({"images": np.zeros((10, 4), np.uint8)}, r"shape \(10, 4\), expected"),
        ({"images": np.zeros((10, 4, 4, 2), np.uint8)}, r"shape \(10, 4, 4, 2\), expected"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"shape \(0, 4, 4, 3\)"),
        ({"images": np.zeros((1, 4, 4, 3), np.uint8)}, "split is empty; at least two"),
        ({"pictures": np.zeros((10, 4, 4, 3), np.uint8)}, "no array `images`"),
        ({"images": np.zeros((10, 4, 4), np.uint8), "labels": np.zeros(9, int)}, r"labels are int64 \(9,\)"),
        ({"images": np.zeros((10, 4, 4), np.uint8), "labels": np.full(10, -1)}, "label -1 is negative"),
        ({"images": np.zeros((10, 4, 4), np.uint8), "labels": np.full(10, 2**32 + 1)}, "label 4294967297 is too large"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "a.npz")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none.npz': no such file"):
        opened(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"data.path='': no such file"):
        opened("")
    np.savez(tmp_path / "a.npz", images=np.zeros((10, 4, 4), np.uint8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(UserError, match=r"cut.npz: not a readable npz"):
        opened(tmp_path / "cut.npz")
    np.savez_compressed(tmp_path / "b.npz", images=np.random.default_rng(0).integers(0, 255, (10, 4, 4), np.uint8))
    content = bytearray((tmp_path / "b.npz").read_bytes())
    for damaged in range(60, 260, 10):
        (tmp_path / "damaged.npz").write_bytes(
            content[:damaged] + bytes([content[damaged] ^ 255]) + content[damaged + 1 :]
        )
        with pytest.raises(UserError, match=r"damaged.npz: "):
            opened(tmp_path / "damaged.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"text.npz: not a readable npz"):
        opened(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros((10, 4, 4), np.uint8))
    with pytest.raises(UserError, match=r"one.npy: not a readable npz"):
        opened(tmp_path / "one.npy")
    with pytest.raises(UserError, match=r"needs an array `condition`"):
        opened(tmp_path / "a.npz", embeddings="npy")
    with pytest.raises(UserError, match=r"no named splits"):
        opened(tmp_path / "a.npz", validation_split="test")
