import numpy as np
import pytest

from binlatent.data.codes import CodeSource
from binlatent.data.options import DataOptions
from binlatent.data.sources.arrays import ArraySource
from binlatent.data.sources.base import BrokenExample, held_out
from binlatent.data.splits import open_splits
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from tests import tiny


class Damaged(ArraySource):
    """The examples of `bad` cannot be read."""

    def __init__(self, n, bad):
        super().__init__("damaged", np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1))
        self.bad, self.reads = bad, []

    def read(self, index):
        self.reads.append(index)
        if index in self.bad:
            raise BrokenExample(f"{index}.jpg: cut short")
        return super().read(index)


def test_a_misspelt_key_is_an_error():
    with pytest.raises(TypeError, match=r"resolutoin"):
        DataOptions(resolutoin=8, resolution=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "foldr"},
        {"crop": "middle"},
        {"channels": 4},
        {"resolution": 0},
        {"workers": -1},
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"embeddings": "npz"},
        {"embeddings": "npy"},  # digits have none
        {"captions": "txt"},  # the same
    ],
)
def test_options_out_of_range_name_the_key_and_the_value(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"data\.{key}.*{value}"):
        DataOptions(**{"resolution": 8, **wrong})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source": "folder", "captions": "text"},
            r"captions='text': expected one of '', 'txt', 'jsonl' with data\.source=",
        ),
        ({"source": "shards", "captions": "jsonl"}, r"captions='jsonl': expected one of '', 'txt' with"),
        (
            {"source": "folder", "captions": "txt", "embeddings": "npy"},
            r"are both set, but images are conditioned on only one",
        ),
    ],
)
def test_captions_that_a_source_cannot_have(options, message):
    with pytest.raises(UserError, match=message):
        DataOptions(resolution=8, **options)


def test_the_rule_holds_out_about_the_fraction_and_depends_on_the_seed():
    first, second = held_out(10_000, 0.1, 0), held_out(10_000, 0.1, 1)
    assert 900 < first.sum() < 1100
    assert 900 < second.sum() < 1100
    assert (first & second).sum() < 200
    names = [f"{i}.png" for i in range(10_000)]
    first, second = held_out(names, 0.1, 0), held_out(names, 0.1, 1)
    assert 900 < first.sum() < 1100
    assert (first & second).sum() < 200


def test_examples_keep_their_split_when_others_are_added():
    np.testing.assert_array_equal(held_out(500, 0.2, 3), held_out(700, 0.2, 3)[:500])
    names = [f"{i}.png" for i in range(700)]
    np.testing.assert_array_equal(held_out(names[::7], 0.2, 3), held_out(names, 0.2, 3)[::7])


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_both_splits_have_an_example(fraction):
    assert held_out(2, fraction, 0).sum() == 1
    assert held_out(["a", "b"], fraction, 0).sum() == 1


def test_splits_are_disjoint_and_complete(folder):
    splits = open_splits(DataOptions(source="folder", path=str(folder), resolution=8, validation_fraction=0.3), seed=0)
    content = [{int(part[i]["image"][0, 0, 0]) for i in range(len(part))} for part in (splits.train, splits.validation)]
    assert content[0].isdisjoint(content[1])
    assert content[0] | content[1] == {i * 10 for i in range(24)}


def test_the_fingerprint_follows_the_data_and_the_split_but_not_augmentation():
    base = {"resolution": 8, "channels": 1}
    prints = [
        open_splits(DataOptions(**{**base, **change}), seed=seed).fingerprint
        for change, seed in [
            ({}, 0),
            ({"flip": True, "crop": "center", "workers": 3}, 0),
            ({}, 1),
            ({"resolution": 16}, 0),
            ({"labels": False}, 0),
            ({"validation_fraction": 0.2}, 0),
        ]
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5


def test_an_unreadable_example_is_replaced_by_the_next_and_counted_once(caplog):
    source = Damaged(10, {3, 4, 9})
    assert source[3]["image"].item() == 5
    assert source[9]["image"].item() == 0
    assert source[3]["image"].item() == 5
    assert sorted(source.broken) == [3, 4, 9]
    assert source.reads == [3, 4, 5, 9, 0, 5]  # what is known to be broken is not tried again
    assert [source.counted(i) for i in (2, 3, 5)] == [True, False, True]
    assert len(caplog.records) == 3
    assert "3.jpg: cut short" in caplog.text


def test_the_replacement_does_not_depend_on_what_was_read_before():
    fresh, used = Damaged(10, {3, 4}), Damaged(10, {3, 4})
    for i in range(10):
        used[i]
    assert [fresh[i]["image"].item() for i in (4, 3)] == [used[i]["image"].item() for i in (4, 3)] == [5, 5]


def test_too_many_unreadable_examples_are_an_error():
    source = Damaged(1000, set(range(0, 1000, 10)))
    with pytest.raises(UserError, match=r"51 of 1000 .*cut short.*data\.path"):
        for i in range(1000):
            source[i]


def test_nothing_readable_is_an_error():
    with pytest.raises(UserError, match=r"none of the 3 .*0.jpg: cut short"):
        Damaged(3, {0, 1, 2})[0]


def image_file(folder, **arrays):
    np.savez(folder / "images.npz", images=tiny.images(48), **arrays)
    return str(folder / "images.npz")


def test_a_run_refuses_classes_with_embeddings_before_it_trains(tmp_path):
    path = image_file(tmp_path, labels=np.arange(48) % 3, condition=np.ones((48, 5)))
    run = Experiment.open(tmp_path / "run", tiny.config(path, data__embeddings="npy"))
    with pytest.raises(UserError, match=r"3 classes and embeddings of shape \(5,\).*data\.labels=False"):
        run.run()
    assert not (tmp_path / "run" / "autoencoder").exists()


def test_captions_and_classes_come_with_the_codes(tmp_path):
    texts = np.array([[f"number {i}", "one of two" if i % 2 else ""] for i in range(48)])
    path = image_file(tmp_path, labels=np.arange(48) % 3, words=texts)
    run = Experiment.open(tmp_path / "run", tiny.config(path, data__captions="words", codes__flips=True))
    run.train("autoencoder")
    manifest = run.encode()
    assert manifest.spec.captions and manifest.spec.class_names == ("0", "1", "2")
    for split in ("train", "validation"):
        images, codes = getattr(run.splits(), split), CodeSource(run.codes, split)
        assert len(images) == len(codes) > 0
        for i in range(len(codes)):
            assert tuple(codes.captions[j] for j in codes[i]["caption"]) == images[i]["caption"]
            assert codes[i]["label"] == images[i]["label"]
