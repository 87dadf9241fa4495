"""Files of feature networks: found, downloaded, checked, converted and read back, for small synthetic networks."""

import dataclasses
import hashlib
import http.server
import threading

import numpy as np
import pytest

from binlatent.convert import features
from binlatent.convert.features import Feature, SourceFile, convert_features, lpips_params, resnet50_params
from binlatent.errors import UserError
from binlatent.nets import weights
from tests.torch_nets import torch_and


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "binlatent"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A network `tiny` of one file, published on a server of this machine."""
    torch = pytest.importorskip("torch", reason="torch is not installed: no .pth file to convert")
    folder = tmp_path / "www"
    folder.mkdir()
    path = folder / "tiny.pth"
    torch.save({"weight": torch.arange(6.0).reshape(2, 3)}, path)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file = SourceFile(
        name="tiny.pth",
        url=f"http://localhost:{server.server_port}/tiny.pth",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:8],
    )
    tiny = Feature(files=(file,), convert=lambda state: {"layer": {"kernel": state["weight"].T}})
    monkeypatch.setattr(features, "FEATURES", {"tiny": tiny})
    yield path, file, server
    server.shutdown()


def test_download_convert_and_read_back(published, cache):
    _, _, server = published
    path = convert_features("tiny")
    assert path == cache / "tiny.npz"
    np.testing.assert_array_equal(weights.load("tiny")["layer"]["kernel"], np.arange(6.0).reshape(2, 3).T)
    server.shutdown()
    server.server_close()
    path.unlink()
    convert_features("tiny")  # the downloaded file is kept
    assert sorted(p.name for p in cache.rglob("*") if p.is_file()) == ["tiny.npz", "tiny.pth"]


def test_local_file(published):
    path, *_ = published
    convert_features("tiny", [path])
    assert weights.load("tiny")["layer"]["kernel"].shape == (3, 2)


def test_without_a_network_the_error_says_which_file_goes_where(published, cache):
    _, file, server = published
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as error:
        convert_features("tiny")
    assert file.url in str(error.value) and str(cache / "downloads" / "tiny.pth") in str(error.value)
    assert not list(cache.rglob("*.pth*"))


def test_a_wrong_checksum_is_refused_and_not_kept(published, cache, monkeypatch):
    path, file, _ = published
    wrong = Feature(files=(dataclasses.replace(file, sha256="00000000"),), convert=dict)
    monkeypatch.setattr(features, "FEATURES", {"tiny": wrong})
    for paths in ((), [path]):
        with pytest.raises(UserError, match="00000000"):
            convert_features("tiny", paths)
    assert not list(cache.rglob("*.pth*")) and not (cache / "tiny.npz").exists()


def test_wrong_requests(published, tmp_path):
    path, *_ = published
    with pytest.raises(UserError, match="there are tiny"):
        convert_features("vgg")
    with pytest.raises(UserError, match="needs 1 files"):
        convert_features("tiny", [path, path])
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        convert_features("tiny", [tmp_path / "nowhere.pth"])


def test_a_file_that_does_not_fit_names_the_tensor(published, monkeypatch):
    _, file, _ = published
    monkeypatch.setattr(features, "FEATURES", {"tiny": Feature(files=(file,), convert=resnet50_params)})
    with pytest.raises(UserError, match=r"bn1\.weight"):
        convert_features("tiny")


def test_missing_weights_name_the_command():
    with pytest.raises(UserError, match="binlatent convert-features lpips"):
        weights.load("lpips")


def test_the_heads_that_lpips_ships_pass_the_checksum_and_fit():
    """The only published file that is available offline: its checksum, format and tensors are as expected."""
    _, lpips = torch_and("lpips")
    path = features.pathlib.Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    features._check(path, features.FEATURES["lpips"].files[1])
    heads = features.read_torch_file(path)
    with pytest.raises(ValueError, match=r"no tensor 'features.0.weight'"):  # the heads are read after VGG's own
        lpips_params({}, heads)
    assert {name: value.shape for name, value in heads.items()} == {
        f"lin{i}.model.1.weight": (1, channels, 1, 1) for i, channels in enumerate((64, 128, 256, 512, 512))
    }


def test_the_command_line_offers_every_network(capsys):
    from binlatent.cli import main as cli

    with pytest.raises(SystemExit) as left:
        cli.main(["convert-features", "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for name, feature in features.FEATURES.items():
        assert name in said
        assert all(file.name.removeprefix("lpips-v0.1-") in said for file in feature.files)


def test_the_command_line_converts_a_local_file(published, monkeypatch, capsys):
    from binlatent.cli import main as cli

    monkeypatch.setattr(features, "FEATURES", {"lpips": features.FEATURES["tiny"]})
    cli.main(["convert-features", "lpips", str(published[0])])
    assert "lpips.npz" in capsys.readouterr().out
