"""From images to stored codes: which codes of an image there are, and that they do not depend on how they were made."""

import functools

import jax
import numpy as np
import pytest

from binlatent.data import encoding
from binlatent.data.codes import CodeSource, CodeWriter
from binlatent.data.encoding import write_codes
from binlatent.data.options import CodeOptions, DataOptions
from binlatent.data.splits import open_splits

SHAPE = (4, 4, 3)
NUM = 45


@pytest.fixture
def splits(tmp_path, monkeypatch):
    """45 images of 4×6 pixels, in batches of 4 and shards of 8."""
    monkeypatch.setattr(encoding, "LARGEST_BATCH", 4)
    monkeypatch.setattr(encoding, "CodeWriter", functools.partial(CodeWriter, shard_size=8))
    images = np.random.default_rng(0).integers(0, 256, (NUM, 4, 6, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(NUM))
    data = DataOptions(resolution=4, source="npz", path=str(tmp_path / "images.npz"), crop="random")
    return data, open_splits(data, seed=0)


def encode(images, key, start):
    """Bits that are 1 where a channel is bright; drawn with its brightness as the probability if there is a key."""
    probability = images / 255
    if key is None:
        return probability > 0.5
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(start + np.arange(len(images)))
    return np.asarray(jax.vmap(lambda k: jax.random.uniform(k, images.shape[1:]))(keys)) < probability


def codes_of(folder, splits, *, seed=0, drawn=True, encode=encode, **options):
    """All codes of the training images, bool (images, codes, y, x, k), in order."""
    data, opened = splits
    made = {"autoencoder": "aaaa", "code_shape": SHAPE, "seed": seed, "drawn": drawn}
    write_codes(folder, opened, data, CodeOptions(**options), encode, **made)
    source = CodeSource(folder, "train")
    rows = [source[i] for i in range(len(source))]
    packed = np.stack([[row["code"], *row.get("views", ())] for row in rows])
    return np.unpackbits(packed, axis=-1).reshape(*packed.shape[:2], *SHAPE).astype(bool)


def images_of(splits, left):
    """The training images, cropped to the columns from `left` on."""
    source = splits[1].train
    return np.stack([source[i]["image"][:, left : left + 4] for i in range(len(source))])


def test_there_is_one_thresholded_code_of_the_centre_unless_more_are_asked_for(tmp_path, splits):
    codes = codes_of(tmp_path / "codes", splits)
    assert np.array_equal(codes[:, 0], images_of(splits, 1) > 127.5) and codes.shape[1] == 1
    with_flips = codes_of(tmp_path / "flips", splits, flips=True)
    assert np.array_equal(with_flips, np.stack([codes[:, 0], codes[:, 0, :, ::-1]], 1))


def test_views_are_of_random_crops_and_each_has_its_mirror_image(tmp_path, splits):
    codes = codes_of(tmp_path / "codes", splits, views=4, flips=True, drawn=False)
    assert np.array_equal(codes[:, 0], images_of(splits, 1) > 127.5)
    assert np.array_equal(codes[:, 4:], codes[:, :4, :, ::-1])
    crops = np.stack([images_of(splits, left) > 127.5 for left in range(3)], 1)
    found = (codes[:, 1:4, None] == crops[:, None]).all((3, 4, 5))  # (images, views, crops)
    assert (found.sum(2) == 1).all() and (found.sum((0, 1)) > 20).all()


def test_views_but_the_first_are_drawn_and_all_differ(tmp_path, splits):
    data, opened = splits
    codes = codes_of(tmp_path / "codes", (DataOptions(**vars(data) | {"crop": "center"}), opened), views=3, flips=True)
    probability = images_of(splits, 1) / 255
    expected = np.minimum(probability, 1 - probability).mean()
    assert np.array_equal(codes[:, 3], codes[:, 0, :, ::-1])
    unmirrored = np.concatenate([codes[:, 1:3], codes[:, 4:, :, ::-1]], 1)
    assert abs((unmirrored != codes[:, :1]).mean() - expected) < 0.02
    between = (unmirrored[:, :, None] != unmirrored[:, None]).mean((0, 3, 4, 5))  # of each two of the four
    assert (between[~np.eye(4, dtype=bool)] > 0.2).all()


def test_codes_are_a_function_of_the_seed_alone(tmp_path, splits, monkeypatch):
    """Not of batches, nor of an interruption."""
    codes = codes_of(tmp_path / "codes", splits, views=3, flips=True)
    for path in list((tmp_path / "codes").glob("train-0000[13]*.json")):
        path.unlink()
    calls = []

    def counted(images, key, start):
        calls.append(start)
        return encode(images, key, start)

    assert np.array_equal(codes, codes_of(tmp_path / "codes", splits, views=3, flips=True, encode=counted))
    assert {start // 8 for start in calls} == {1, 3}
    monkeypatch.undo()
    assert np.array_equal(codes, codes_of(tmp_path / "at once", splits, views=3, flips=True))
    other = codes_of(tmp_path / "other", splits, views=3, flips=True, seed=1)
    assert np.array_equal(codes[:, ::3], other[:, ::3])
    assert (codes[:, 1] != other[:, 1]).mean() > 0.2
