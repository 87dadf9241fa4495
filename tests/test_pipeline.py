import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

import binlatent
from binlatent import mesh as mesh_lib
from binlatent.errors import UserError
from binlatent.pipeline import Pipeline
from binlatent.sampling.conditions import conditions
from binlatent.sampling.inputs import check_count, check_images
from binlatent.text.encoder import check_captions
from tests import tiny


@pytest.fixture(scope="module")
def model(trained):
    return binlatent.load(trained)


def test_encode_and_decode(model):
    images = tiny.images(11)
    codes = model.encode(images)
    assert codes.shape == (11, 4, 4, 4)
    assert codes.dtype == bool
    assert np.array_equal(codes, model.encode(images.astype(np.float32) / 255))
    restored = model.decode(codes)
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    assert not np.array_equal(codes, model.encode(images, jax.random.key(0)))


def test_samples_are_a_function_of_seed_and_place(model):
    few = model.sample(seed=3, num=4, labels=[0, 1], steps=2)
    many = model.sample(seed=3, num=20, labels=[0, 1], steps=2)
    np.testing.assert_allclose(few, many[:4], atol=1e-5)
    assert not np.allclose(few, model.sample(seed=4, num=4, labels=[0, 1], steps=2))
    later = next(model.sample_batches(seed=3, num=4, start=16, labels=[0, 1], steps=2))
    np.testing.assert_allclose(later.images, many[16:20], atol=1e-5)


def test_denoise_and_likelihood(model):
    codes = np.random.default_rng(0).random((5, 4, 4, 4)) < 0.5
    assert model.denoise(codes, 0.5).shape == codes.shape
    assert np.array_equal(model.denoise(codes, 0.5, label=1), model.denoise(codes, np.full(5, 0.5), label=[1] * 5))
    bits = model.bits_per_bit(codes, seed=1, steps=8)
    assert bits.shape == (5,)
    np.testing.assert_allclose(bits, model.elbo_terms(codes, seed=1, steps=8).sum(0) / 64, rtol=1e-5)


def test_editing_keeps_what_is_known(model):
    codes = model.encode(tiny.images(3))
    known = np.zeros_like(codes)
    known[:, :2] = True
    edited = model.edit(codes, known=known, seed=1, steps=3)
    assert np.array_equal(edited[:, :2], codes[:, :2])
    variation = model.edit(codes, start=0.1, seed=1, steps=3)
    fresh = model.edit(codes, start=1.0, seed=1, steps=3)
    assert (variation != codes).mean() < (fresh != codes).mean()
    path = model.interpolate(codes[0], codes[1], 4)
    assert np.array_equal(path[0], codes[0])
    assert np.array_equal(path[-1], codes[1])


def test_no_labels_are_every_class_in_turn(model):
    cycled = model.sample(seed=3, num=6, steps=2)
    assert np.array_equal(cycled, model.sample(seed=3, num=6, labels=[0, 1, 2], steps=2))
    assert np.array_equal(cycled, model.sample(seed=3, num=6, labels=model.class_names, steps=2))
    assert not np.array_equal(cycled, model.sample(seed=3, num=6, labels="none", steps=2))
    one = model.sample(seed=3, num=2, labels=2, steps=2)
    assert np.array_equal(one, model.sample(seed=3, num=2, labels=[2, 2], steps=2))


def test_a_warm_pipeline_compiles_once_per_shape(trained):
    from binlatent.sampling import programs

    model = binlatent.load(trained, batch_size=16)
    model.sample(num=16, steps=2, guidance=1.0)
    compiled = [f._cache_size() for f in (programs.generate, programs.decode, programs.encode)]
    model.sample(seed=9, num=16, labels=[2, 1], steps=2, guidance=3.0, temperature=0.7)
    model.sample(num=40, steps=2, guidance=1.0)  # the last batch is padded
    again = binlatent.load(trained, batch_size=16)
    again.sample(num=16, steps=2, guidance=1.0)
    assert [f._cache_size() for f in (programs.generate, programs.decode, programs.encode)] == compiled
    model.sample(num=16, steps=5, guidance=1.0)
    assert programs.generate._cache_size() == compiled[0] + 1


def test_keys_are_made_a_batch_at_a_time(model):
    """Two thousand million images: the first of them comes without a key for each of the others."""
    first = next(model.sample_batches(seed=3, num=2_000_000_000, labels=[0, 1], steps=2))
    assert len(first.images) == model.batch_size
    np.testing.assert_allclose(first.images[:4], model.sample(seed=3, num=4, labels=[0, 1], steps=2), atol=1e-5)


def test_images_may_come_as_uint8(model):
    drawn = {"seed": 3, "num": 4, "labels": [0, 1], "steps": 2}
    given = next(model.sample_batches(**drawn, image_dtype="uint8")).images
    assert given.dtype == np.uint8
    np.testing.assert_allclose(given, 255 * model.sample(**drawn), atol=0.51)


def test_a_batch_is_started_before_the_one_before_is_fetched(model):
    events = []

    def program(x):
        events.append("start")
        return x

    small = dataclasses.replace(model, batch_size=8)
    for _ in mesh_lib.run_batches(program, 24, (lambda index: index,), mesh=small.mesh, batch_size=8):
        events.append("fetched")
    assert events == ["start", "start", "fetched", "start", "fetched", "fetched"]


def test_embeddings_are_cast_a_batch_at_a_time():
    metadata = {"condition_shape": [4], "num_classes": 0}
    given = conditions(metadata, embeddings=np.arange(12, dtype=np.float16).reshape(3, 4))
    assert given.values.vector.dtype == np.float16
    rows = given.rows(np.array([0, 3, 5])).vector
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [0, 0, 8]


def test_a_pipeline_describes_itself_briefly(model):
    assert len(repr(model)) < 300
    assert "parameters" in repr(model)
    assert model.objective is model.objective


VECTORS = {"condition_shape": [4], "num_classes": 0}
CLASSES = {"condition_shape": [], "num_classes": 2, "class_names": ["cat", "dog"]}
WORDS = {"condition_shape": [], "num_classes": 2, "text": {"encoder": "own", "vocabulary": 300}}
CODES = np.zeros((1, 4, 4, 4), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(labels=[3]), "from 0 to 2"),
        (lambda m: m.sample(labels=3), "label 3 is no class"),
        (lambda m: m.sample(labels=[-1]), "from 0 to 2"),
        (lambda m: m.sample(labels=[0.5]), "label 0.5"),
        (lambda m: m.sample(labels=[True]), "label True"),
        (lambda m: m.sample(labels=[]), "no labels given"),
        (lambda m: m.sample(labels="a cat"), "label 'a cat' is no class"),
        (lambda m: m.sample(labels=[[0, 1]]), "is no class"),
        (lambda m: m.sample(labels=[None]), "label None"),
        (lambda m: m.sample(steps=0), "steps is 0"),
        (lambda m: m.sample(steps="4"), "steps is '4': an integer"),
        (lambda m: m.sample(steps=2.5), "steps is 2.5: an integer"),
        (lambda m: m.sample(temperature=0.0), "temperature is 0.0"),
        (lambda m: m.sample(temperature=float("nan")), "temperature is nan: a number"),
        (lambda m: m.sample(guidance=float("inf")), "guidance is inf: a number"),
        (lambda m: m.sample(posterior="exact"), "posterior is 'exact': one of 'mixture', 'plugin'"),
        (lambda m: m.sample(posterior=3), "posterior is 3: one of 'mixture', 'plugin'"),
        (lambda m: m.sample(stpes=3), "'stpes'; did you mean steps"),
        (lambda m: m.sample(num=0), "num is 0"),
        (lambda m: check_count("num", 2.5), "num is 2.5: an integer"),
        (lambda m: check_count("num", "4"), "num is '4': an integer"),
        (lambda m: m.sample(num=2**33), "num is 8589934592"),
        (lambda m: m.sample(seed=-1), "seed is -1: an integer from 0 to 4294967295"),
        (lambda m: m.sample(seed=2**70), "seed is 1180591620717411303424"),
        (lambda m: next(m.sample_batches(start=-1)), "start is -1"),
        (lambda m: m.encode(np.zeros((0, 8, 8, 1), np.uint8)), "at least one image"),
        (lambda m: m.encode(np.zeros((2, 9, 8, 1), np.uint8)), r"(2, 9, 8, 1) given; this model takes (b, 8, 8, 1)"),
        (lambda m: m.encode(np.full((1, 8, 8, 1), np.nan, np.float32)), "NaN"),
        (lambda m: m.encode(np.zeros((1, 8, 8, 1), np.int64)), "int64"),
        (lambda m: check_images("image.png", (8, 8, 1)), "images of shape ()"),
        (lambda m: m.decode(np.zeros((1, 4, 4, 5), bool)), "b, 4, 4, 4"),
        (lambda m: m.decode(np.zeros((0, 4, 4, 4), bool)), "at least one code"),
        (lambda m: m.decode(np.zeros((1, 4, 4, 4))), "type float64"),
        (lambda m: m.denoise(CODES, 1.5), "t is 1.5"),
        (lambda m: m.denoise(CODES, [0.1, 0.2]), "one for each of 1 codes"),
        (lambda m: m.denoise(CODES, "noon"), "t is 'noon'"),
        (lambda m: m.edit(CODES, start=-0.5), "start is -0.5"),
        (lambda m: m.edit(CODES, known=np.zeros((2, 4, 4, 4), bool)), "known is bool (2, 4, 4, 4)"),
        (lambda m: m.bits_per_bit(CODES, steps=0), "steps is 0"),
        (lambda m: m.interpolate(CODES[0], CODES[0], 0), "num is 0"),
        (lambda m: conditions(VECTORS, embeddings=np.full((2, 4), np.nan)), "without NaN"),
        (lambda m: conditions(VECTORS, embeddings=[[1, 2]]), "(1, 2) given, (n, 4) expected"),
        (
            lambda m: conditions(VECTORS, embeddings={"vectors": [[1]]}),
            "embeddings have vectors; this model takes vector",
        ),
        (lambda m: conditions(VECTORS, labels=[1]), "trained without classes"),
        (lambda m: conditions(CLASSES, labels="dgo"), "did you mean dog"),
        (lambda m: conditions(CLASSES, embeddings=[[1.0]]), "trained without any"),
        (lambda m: conditions(WORDS, embeddings=[[1.0]]), "give prompts"),
        (lambda m: conditions(WORDS, labels=[1]), "conditioned on texts too"),
        (lambda m: m.sample(prompts=["a cat"]), "trained without texts"),
        (lambda m: m.sample(condition=[[0.5]]), "trained without any"),
        (lambda m: m.sample(prompts=["a"], condition=[[0.5]]), "give one of them"),
        (lambda m: m.sample(negative_prompts=["a cat"]), "trained without texts"),
        (lambda m: check_captions(["a", " "]), "prompt 2 of 2 is empty"),
        (lambda m: check_captions([]), "no prompt is given"),
        (lambda m: check_captions([3]), "prompt 1 is 3"),
        (lambda m: check_captions(["a", "\ud83d"]), "text in UTF-8 is expected"),
    ],
)
def test_wrong_input_is_named(model, call, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(model)


def test_a_network_that_the_checkpoint_does_not_have_is_refused(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "copy")
    config = json.loads((workdir / "config.json").read_text())
    config["autoencoder"]["embedding_width"] = 64
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"autoencoder.embedding_width = 64, but .* trained with 32"):
        binlatent.load(workdir)


def test_batch_size_is_checked(trained):
    with pytest.raises(UserError, match="batch_size is 0"):
        Pipeline.load(trained, batch_size=0)


def test_no_work_directory(tmp_path):
    with pytest.raises(UserError, match="no work directory"):
        binlatent.load(tmp_path)
