import io
import pickle

import numpy as np
import PIL.Image
import pytest

from binlatent.data.loader import train_batches
from binlatent.data.options import DataOptions
from binlatent.data.splits import open_splits
from binlatent.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with the set `tiny` of 20 PNG images, prepared without TensorFlow; and the folder of its version."""
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
                "title": tfds.features.Text(),
                "captions": tfds.features.Sequence({"id": np.int32, "text": tfds.features.Text()}),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                file = io.BytesIO()
                PIL.Image.fromarray(np.full((8, 9, 3), i, np.uint8)).save(file, "png")
                file.seek(0)
                captions = [{"id": j, "text": f"größe {i} {j}"} for j in range(2)]
                yield i, {"image": file, "label": i % 3, "title": f"number {i}", "captions": captions}

    data_dir = tmp_path_factory.mktemp("tfds")
    builder = Tiny(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return data_dir, builder.data_dir


def opened(**options):
    return open_splits(DataOptions(**{"source": "tfds", "resolution": 8, **options}), seed=0)


def content(source):
    examples = [source[i] for i in range(len(source))]
    assert all(example["label"] == example["image"][0, 0, 0] % 3 for example in examples)
    return {int(example["image"][0, 0, 0]) for example in examples}


def test_by_name_with_the_split_by_rule(prepared):
    splits = opened(name="tiny", path=str(prepared[0]), validation_fraction=0.3)
    assert splits.class_names == ("ant", "bee", "cow")
    assert content(splits.train) | content(splits.validation) == set(range(20))
    assert content(splits.train).isdisjoint(content(splits.validation))


def test_by_folder_with_named_splits(prepared):
    splits = opened(path=str(prepared[1]), validation_split="test")
    assert content(splits.train) == set(range(20))
    assert content(splits.validation) == set(range(6))
    halves = opened(path=str(prepared[1]), split="train[:50%]", validation_split="train[50%:]")
    assert content(halves.train).isdisjoint(content(halves.validation))
    assert splits.fingerprint != halves.fingerprint


def test_without_labels_and_in_batches(prepared):
    options = DataOptions(source="tfds", path=str(prepared[1]), resolution=8, labels=False)
    splits = open_splits(options, seed=0)
    assert splits.num_classes == 0
    batch = next(train_batches(splits.train, options, seed=0, batch_size=4))
    assert batch.keys() == {"image"}
    assert batch["image"].shape == (4, 8, 8, 3)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [("title", lambda i: (f"number {i}",)), ("captions/text", lambda i: (f"größe {i} 0", f"größe {i} 1"))],
)
def test_captions_of_a_text_feature(prepared, feature, expected):
    splits = opened(path=str(prepared[1]), captions=feature)
    for i in range(len(splits.train)):
        example = splits.train[i]
        assert example["caption"] == expected(example["image"][0, 0, 0])


@pytest.mark.parametrize("feature", ["words", "label", "captions", "captions/id", "title/text"])
def test_features_that_are_not_text_are_named(prepared, feature):
    with pytest.raises(
        UserError, match=rf"data\.captions='{feature}': .* no such text feature; its features are .*title"
    ):
        opened(path=str(prepared[1]), captions=feature)


def test_the_source_can_be_sent_to_workers(prepared):
    source = opened(path=str(prepared[1])).train
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[3]["image"], source[3]["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data.name is empty"),
        ({"name": "cifarr"}, "data.name='cifarr' cannot be opened: .*not found"),
        (
            {"name": "cifar10"},
            r"'cifar10' is not prepared in .*binlatent\[tfds\].*tfds build cifar10 --file_format=array_record --data_dir=",
        ),
        ({"name": "tiny", "split": "tran"}, r"split 'tran' .*its splits are train, test"),
        ({"name": "tiny", "split": "train[:x]"}, r"split 'train\[:x\]'"),
        ({"name": "tiny", "validation_split": "train"}, "20 examples in common"),
        ({"name": "tiny", "validation_split": "train[90%:]"}, "2 examples in common"),
        ({"name": "tiny", "split": "train+test", "validation_split": "test"}, "6 examples in common"),
    ],
)
def test_unavailable_sets_say_what_to_do(prepared, options, message):
    path = str(prepared[0]) if options else ""
    with pytest.raises(UserError, match=message):
        opened(path=path, **options)


def test_a_folder_that_is_not_a_tfds_set(tmp_path):
    with pytest.raises(UserError, match=r"not the folder of a prepared TFDS set"):
        opened(path=str(tmp_path))
