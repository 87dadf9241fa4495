"""Data and codes in a bucket, with an in-memory file system instead of gcsfs."""

import io

import fsspec
import numpy as np
import PIL.Image
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from binlatent.data.codes import CodeSource
from binlatent.data.loader import eval_batches
from binlatent.data.options import DataOptions
from binlatent.data.splits import open_splits
from binlatent.errors import UserError
from tests.data.sources.test_shards import png, write_tar
from tests.data.test_codes import code, encoded, write, writer


class Bucket(MemoryFileSystem):
    protocol = ("gcs", "gs")
    store = {}  # noqa: RUF012 (fsspec's own way)
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://").removeprefix("gcs://"))


@pytest.fixture
def bucket(monkeypatch):
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    Bucket.clear_instance_cache()
    yield epath.Path("gs://bucket")
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]


def opened(source, path, **options):
    options = DataOptions(source=source, path=str(path), resolution=8, **options)
    splits = open_splits(options, seed=0)
    values = []
    for part in (splits.train, splits.validation):
        for batch in eval_batches(part, options, batch_size=4):
            values += batch["image"][batch["mask"]][:, 0, 0, 0].tolist()
    return splits, sorted(values)


def test_a_folder_of_images(bucket):
    for i in range(12):
        place = bucket / "pictures" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(i))
        array = io.BytesIO()
        np.save(array, np.full(3, i))
        (place / f"{i}.npy").write_bytes(array.getvalue())
    splits, values = opened("folder", bucket / "pictures", embeddings="npy")
    assert values == list(range(12))
    assert splits.class_names == ("cat", "dog")
    assert splits.condition_shape == (3,)
    with pytest.raises(UserError, match=r"no such folder"):
        opened("folder", bucket / "nothing")


def test_an_npz_file(bucket):
    file = io.BytesIO()
    np.savez(file, images=np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8))
    bucket.mkdir()
    (bucket / "a.npz").write_bytes(file.getvalue())
    assert opened("npz", bucket / "a.npz")[1] == list(range(9))


def test_tar_files(bucket, tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{i}.png", png(i)) for i in range(9)])
    (bucket / "tars").mkdir(parents=True)
    (bucket / "tars" / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes())
    for _ in range(2):  # the second time from the list that was kept
        assert opened("shards", bucket / "tars")[1] == list(range(9))


def test_codes_are_written_to_a_bucket_and_fetched_once(bucket, cache_home, monkeypatch):
    place = bucket / "run" / "codes"
    out, spec = writer(place)
    write(out, spec, [("train", 1)])
    out, _ = writer(place)
    assert ("train", 1) not in out.missing()
    write(out, spec, out.missing())
    out.finish()
    source = CodeSource(place, "train", expected_fingerprint="aaaa")
    np.testing.assert_array_equal(source[20]["code"], np.packbits(code("train", 20)))
    fetched = list((cache_home / "binlatent" / "codes").iterdir())
    assert len(fetched) == 3
    stamps = [file.stat().st_mtime_ns for file in fetched]
    CodeSource(place, "train")
    assert [file.stat().st_mtime_ns for file in fetched] == stamps
    shard = place / "train-00001-of-00003.arrayrecord"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"train-00001-of-00003\.arrayrecord: \d+ bytes, but \d+ were written"):
        CodeSource(place, "train")


def test_an_encode_of_another_network_replaces_the_codes_in_the_bucket(bucket):
    encoded(bucket / "codes")
    manifest = encoded(bucket / "codes", autoencoder="bbbb")
    assert manifest.spec.autoencoder == "bbbb"
    assert len(CodeSource(bucket / "codes", "train", expected_fingerprint="bbbb")) == 23


def test_what_pillow_cannot_read_is_skipped(bucket, caplog):
    folder = bucket / "pictures"
    folder.mkdir(parents=True)
    for i in range(8):
        file = io.BytesIO()
        PIL.Image.new("L", (8, 8), i).save(file, "png")
        (folder / f"{i}.png").write_bytes(file.getvalue()[: 40 if i == 5 else None])
    assert opened("folder", folder)[1] == [0, 1, 2, 3, 4, 6, 7]
    assert "5.png" in caplog.text
