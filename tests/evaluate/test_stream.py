"""A pass through a feature network: one device equals eight, batches do not matter, an interrupted pass resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.evaluate import stream as stream_lib
from binlatent.evaluate.features import FeatureNetwork, Features
from binlatent.evaluate.reference import Reference
from binlatent.evaluate.scores import frechet_distance, inception_score
from binlatent.evaluate.stream import FeatureStream, featurise, resumable
from tests import tiny

IMAGES = tiny.images(50)
LABELS = np.arange(50) % 3
WEIGHTS = np.random.default_rng(1).normal(size=(64, 5)).astype(np.float32)


def compute(params, images):
    pool = jnp.tanh(images.reshape(len(images), -1) @ params)
    return Features(pool=pool, spatial=pool[:, :3], logits=3 * pool)


NETWORK = FeatureNetwork(
    name="classifier", fingerprint="f", preprocessing="p", params=WEIGHTS, function=compute, label_logits=True
)


def mesh(devices):
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )


def passed(batch, devices=1, limit=20):
    run = featurise(NETWORK, mesh(devices), batch)
    stream = FeatureStream(total=50, limit=limit)
    for start in range(0, 50, batch):
        images = IMAGES[start : start + batch]
        stream.add(images, run(images), LABELS[start : start + batch])
    return stream


def test_batches_and_devices_do_not_matter():
    one, other = passed(7, devices=1), passed(50, devices=8)
    assert one.content == other.content and one.count == other.count == 50
    for name in ("pool", "spatial"):
        np.testing.assert_allclose(one.moments(name).scatter, other.moments(name).scatter, rtol=1e-4, atol=1e-6)
    features = np.tanh(IMAGES.reshape(50, -1) / np.float32(255) @ WEIGHTS)
    np.testing.assert_allclose(one.moments("pool").covariance, np.cov(features, rowvar=False), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(one.sample.index, other.sample.index)
    np.testing.assert_array_equal(one.hits, other.hits)
    assert one.hits[:3, 0].tolist() == [17, 17, 16]
    assert one.hits[:3, 1].sum() == (features.argmax(1) == LABELS).sum()
    assert inception_score(one.classes) == pytest.approx(inception_score(other.classes), rel=1e-5)
    assert frechet_distance(one.moments("pool"), other.moments("pool")) == pytest.approx(0, abs=1e-8)


def test_content_knows_every_image_but_not_their_order():
    run = featurise(NETWORK, mesh(1), 50)

    def content(images):
        stream = FeatureStream(total=None, limit=0)
        stream.add(images, run(images))
        return stream.content

    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    assert content(IMAGES) == content(IMAGES[::-1]) != content(changed)


def test_saved_and_loaded(tmp_path):
    stream = passed(7)
    stream.save(tmp_path / "s.npz", {"what": 1})
    loaded, metadata = FeatureStream.load(tmp_path / "s.npz")
    assert metadata == {"what": 1} and loaded.content == stream.content
    more = IMAGES[:1], featurise(NETWORK, mesh(1), 1)(IMAGES[:1]), LABELS[:1]
    stream.total = loaded.total = None
    stream.classes = loaded.classes = None
    for s in (stream, loaded):
        s.add(*more)
    np.testing.assert_allclose(loaded.moments("pool").scatter, stream.moments("pool").scatter, rtol=1e-12)
    np.testing.assert_array_equal(loaded.sample.features, stream.sample.features)
    np.testing.assert_array_equal(loaded.hits, stream.hits)


def test_interrupted_pass_resumes(tmp_path, monkeypatch):
    """A pass killed after its second batch reads only the rest, and gives the same statistics."""
    monkeypatch.setattr(stream_lib, "SAVE_EVERY", -1.0)
    runs, began = {"classifier": featurise(NETWORK, mesh(1), 10)}, []

    def begin(position, stop=None):
        began.append(position)
        for start in range(position, 50, 10):
            if start == stop:
                raise KeyboardInterrupt
            yield IMAGES[start : start + 10], LABELS[start : start + 10], start + 10

    options = {"folder": tmp_path, "settings": {"seed": 0}, "total": 50, "limit": 20}
    with pytest.raises(KeyboardInterrupt):
        resumable(lambda p: begin(p, 20), runs, **options)
    told = []
    streams = resumable(begin, runs, **options, progress=told.append)
    assert began == [0, 20] and sum(told) == 50
    whole = passed(10)
    np.testing.assert_allclose(streams["classifier"].moments("pool").scatter, whole.moments("pool").scatter, rtol=1e-9)
    assert inception_score(streams["classifier"].classes) == pytest.approx(inception_score(whole.classes), rel=1e-9)
    assert streams["classifier"].content == whole.content
    assert not list(tmp_path.iterdir())


def test_a_pass_with_other_settings_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_lib, "SAVE_EVERY", -1.0)
    runs, began = {"classifier": featurise(NETWORK, mesh(1), 25)}, []

    def begin(position, fail):
        began.append(position)
        yield IMAGES[:25], None, 25
        if fail:
            raise KeyboardInterrupt
        yield IMAGES[25:], None, 50

    with pytest.raises(KeyboardInterrupt):
        resumable(lambda p: begin(p, True), runs, folder=tmp_path, settings={"seed": 0}, total=50, limit=20)
    stream = resumable(lambda p: begin(p, False), runs, folder=tmp_path, settings={"seed": 1}, total=50, limit=20)
    assert began == [0, 0] and stream["classifier"].count == 50


def test_a_damaged_pass_begins_again(tmp_path, capsys):
    runs = {"classifier": featurise(NETWORK, mesh(1), 25)}
    (tmp_path / "unfinished-0.npz").write_bytes(b"PK")
    begin = lambda position: iter([(IMAGES[position:], None, 50)])  # noqa: E731
    stream = resumable(begin, runs, folder=tmp_path, settings={}, total=50, limit=20)
    assert stream["classifier"].count == 50 and "the pass begins again" in capsys.readouterr().err


def test_features_that_are_not_finite_are_refused():
    stream = FeatureStream(total=None, limit=10)
    stream.add(IMAGES[:2], Features(pool=np.full((2, 5), np.nan, np.float32)))
    with pytest.raises(ValueError, match="2 of 2 rows of features are not finite"):
        stream.moments("pool")


def test_reference_is_kept_with_its_hash(tmp_path):
    description = {"data": "abc", "images": 50}
    reference = Reference(description=description, stream=passed(10))
    reference.save(tmp_path / "r.npz")
    again = Reference.load(tmp_path / "r.npz")
    assert again.hash == reference.hash and again.description == description
    assert Reference(description={"data": "abd", "images": 50}, stream=reference.stream).hash != reference.hash
    with np.load(tmp_path / "r.npz") as file:
        arrays = dict(file)
    arrays["meta"] = np.asarray(str(arrays["meta"]).replace("abc", "abx"))
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(UserError, match="has been changed"):
        Reference.load(tmp_path / "r.npz")
    content = (tmp_path / "r.npz").read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        (tmp_path / "r.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="is not a file of `binlatent reference`"):
            Reference.load(tmp_path / "r.npz")
    (tmp_path / "n.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a file of"):
        Reference.load(tmp_path / "n.npz")
