"""A model in one file gives what its work directory gives, from anywhere; a file that is not whole is refused."""

import json
import os
import re
import sys
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

import binlatent
from binlatent.cli.main import main
from binlatent.errors import UserError
from binlatent.stored.pack import Pack, read_pack, write_pack
from tests.data.test_remote import bucket  # noqa: F401


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "model.safetensors"
    main(["pack", "--workdir", str(trained), "--out", str(path)])
    return path


def test_a_pack_gives_what_its_work_directory_gives(trained, packed):
    a, b = binlatent.load(trained), binlatent.load(packed)
    asked = {"seed": 3, "num": 5, "steps": 3, "labels": [0, 2]}
    assert np.array_equal(a.sample(**asked), b.sample(**asked))
    images = (255 * a.sample(**asked)).astype(np.uint8)
    assert np.array_equal(a.encode(images), b.encode(images))
    assert (b.prior.step, b.class_names, b.config.to_dict()) == (a.prior.step, a.class_names, a.config.to_dict())


def test_it_holds_no_optimizer(trained, packed):
    mask = os.umask(0)
    os.umask(mask)
    assert packed.stat().st_mode & 0o777 == 0o666 & ~mask  # others may read it, as any new file
    checkpoints = sum(f.stat().st_size for f in trained.rglob("*") if f.is_file() and "checkpoints" in str(f))
    assert packed.stat().st_size < checkpoints / 2


def test_numpy_alone_reads_the_arrays(trained, packed):
    content = packed.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["binlatent-pack"])["stages"]["prior"]["step"] == 6
    found = {
        name: np.frombuffer(content[8 + size :][slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }
    model = binlatent.load(trained)
    assert np.array_equal(found["prior/bits/kernel"], model.prior.params["bits"]["kernel"])
    assert np.array_equal(found["autoencoder/embed/kernel"], model.autoencoder.params["embed"]["kernel"])


def test_from_a_bucket(packed, bucket):  # noqa: F811
    write_pack(bucket / "model.safetensors", read_pack(packed))
    assert (bucket / "model.safetensors").read_bytes() == packed.read_bytes()
    assert binlatent.load("gs://bucket/model.safetensors").num_classes == 3
    with pytest.raises(UserError, match=re.escape("no file gs://bucket/other.safetensors")):
        binlatent.load("gs://bucket/other.safetensors")


def test_from_the_hub(packed, monkeypatch):
    asked = []

    def hf_hub_download(**arguments):
        asked.append(arguments)
        if arguments["filename"] != "model.safetensors":
            raise OSError("404 Client Error\nmore")
        return str(packed)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=hf_hub_download))
    assert binlatent.load("hf://me/digits@v2/model.safetensors").num_classes == 3
    assert asked == [{"repo_id": "me/digits", "filename": "model.safetensors", "revision": "v2"}]
    with pytest.raises(UserError, match=r"hf://me/digits/a.safetensors cannot be had: 404 Client Error$"):
        binlatent.load("hf://me/digits/a.safetensors")
    with pytest.raises(UserError, match="hf://OWNER/NAME/FILE is expected"):
        binlatent.load("hf://me/digits")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(UserError, match=re.escape("pip install 'binlatent[hf]'")):
        binlatent.load("hf://me/digits/model.safetensors")


def changed(packed, folder, change):
    content = bytearray(packed.read_bytes())
    (folder / "changed.safetensors").write_bytes(change(content))
    return folder / "changed.safetensors"


def flipped(content):
    content[-5] ^= 16
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[: len(content) // 2], "is cut short"),
        (lambda content: content[:100], "is cut short"),
        (lambda content: b"", "is cut short"),
        (lambda content: b"PK" + bytes(1000), "is cut short or no .safetensors file"),
        (lambda content: content.replace(b'\\"version\\": 1', b'\\"version\\": 2'), "a pack of format 2"),
        (flipped, "has changed since it was written: array prior/"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(packed, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        binlatent.load(changed(packed, tmp_path, change))


def test_other_files_are_refused(packed, tmp_path):
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="`binlatent pack` has not made"):
        binlatent.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"no file .*missing.safetensors"):
        binlatent.load(tmp_path / "missing.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        binlatent.load(tmp_path / "folder.safetensors")
    pack = read_pack(packed)
    old = Pack(config=pack.config | {"format": 1}, params=pack.params, stages=pack.stages)
    write_pack(tmp_path / "old.safetensors", old)
    with pytest.raises(UserError, match=r"old.safetensors is of format 1"):
        binlatent.load(tmp_path / "old.safetensors")
    with pytest.raises(UserError, match=r"ends in .safetensors"):
        write_pack(tmp_path / "a.npz", pack)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["folder.safetensors", "old.safetensors", "other.safetensors"]
