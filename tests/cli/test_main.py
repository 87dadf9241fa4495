"""The command line for users: help, results, and messages instead of tracebacks."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from binlatent.cli.main import main
from binlatent.cli.sink import ImageSink
from tests import tiny


def fails(capsys, *argv):
    """The message of a command that must fail with status 2."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in argv])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys, binlatent.cli.main as c; c._parser().format_help(); "
        "print(sorted({'jax', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["run", "train", "encode", "sample", "reconstruct", "edit", "evaluate", "info"])
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "--workdir" in capsys.readouterr().out


def test_sample_to_every_kind_of_output(tmp_path, trained, monkeypatch):
    types, add = set(), ImageSink.add
    monkeypatch.setattr(
        ImageSink, "add", lambda self, images, *rest: types.add(images.dtype) or add(self, images, *rest)
    )
    common = ["sample", "--workdir", str(trained), "--num", "6", "--steps", "2", "--seed", "7"]
    main([*common, "--labels", "0,1,2", "--out", str(tmp_path / "s.npz")])
    arrays = np.load(tmp_path / "s.npz")
    assert arrays["images"].shape == (6, 8, 8, 1)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    assert arrays["labels"].dtype == np.int32
    main([*common, "--out", str(tmp_path / "grid.png")])
    assert Image.open(tmp_path / "grid.png").size[0] >= 24
    main([*common, "--labels", "0,1,2", "--out", str(tmp_path / "folder")])
    assert len(list((tmp_path / "folder").glob("*.png"))) == 6
    stored = np.asarray(Image.open(tmp_path / "folder" / "000001-1.png"))
    assert np.array_equal(stored, arrays["images"][1, ..., 0])
    assert types == {np.dtype(np.uint8)}  # a quarter of the bytes to fetch from the device


def test_reconstruct_own_images(tmp_path, trained, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, mode in enumerate(("L", "RGB", "RGBA", "P")):
        Image.fromarray(tiny.images(1, 16)[0, ..., 0]).convert(mode).save(folder / f"{i}.png")
    main(["reconstruct", "--workdir", str(trained), "--images", str(folder), "--out", str(tmp_path / "r.png")])
    assert "PSNR" in capsys.readouterr().out
    assert (tmp_path / "r.png").exists()


@pytest.mark.parametrize(("how", "rows"), [("inpaint", 6), ("vary", 6), ("interpolate", 2)])
def test_edit_own_images(tmp_path, trained, how, rows):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, image in enumerate(tiny.images(2)):
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    out = tmp_path / "edited.npz"
    main(
        [
            "edit",
            how,
            "--workdir",
            str(trained),
            "--images",
            str(folder),
            "--out",
            str(out),
            "--num",
            "2",
            "--steps",
            "2",
        ]
    )
    assert np.load(out)["images"].shape == (rows, 8, 8, 1)


def test_edit_with_a_mask_and_beyond_the_edges(tmp_path, trained):
    image, mask = tiny.images(1)[0, ..., 0], np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 255  # of another size than the image: both are cut and resized alike
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    call = ["--workdir", str(trained), "--images", str(tmp_path / "a.png"), "--num", "2", "--steps", "2"]
    more = ["--mask", str(tmp_path / "mask.png"), "--feather", "0", "--out", str(tmp_path / "in.npz")]
    main(["edit", "inpaint", *call, *more])
    known, *made = np.load(tmp_path / "in.npz")["images"][..., 0]
    assert all(np.array_equal(each[:, :4], image[:, :4]) for each in (known, *made))
    assert (known[:, 4:] == 128).all()
    main(["edit", "outpaint", *call, "--margins", "1,0,2,3", "--feather", "0", "--out", str(tmp_path / "out.npz")])
    known, *made = np.load(tmp_path / "out.npz")["images"][..., 0]
    assert known.shape == (11, 11)
    assert all(np.array_equal(each[1:9, :8], image) for each in (known, *made))


def test_info(trained, capsys):
    main(["info", "--workdir", str(trained)])
    said = capsys.readouterr().out
    assert "4×4×4 = 64 bits" in said
    assert "6 of 6 steps" in said
    assert "classes      3, 0 to 2" in said


def test_a_second_run_has_nothing_to_do(trained, capsys):
    main(["run", "--workdir", str(trained)])
    said = capsys.readouterr().out
    assert "autoencoder: done" in said
    assert "prior: done" in said


def test_wrong_arguments_are_named(tmp_path, trained, capsys):
    new = ["--workdir", tmp_path / "new"]
    assert "did you mean prior.width" in fails(capsys, "run", "--config", "digits", *new, "--config.prior.widht=3")
    assert "an integer is expected" in fails(capsys, "run", "--config", "digits", *new, "--config.prior.width=wide")
    assert "digits" in fails(capsys, "run", "--config", "nonsense", *new)
    assert "config.json" in fails(capsys, "run", *new)
    assert "config.json" in fails(capsys, "sample", *new)
    assert "'--nmu'" in fails(capsys, "sample", *new, "--nmu", "3")
    assert "does not fit 8 devices" in fails(capsys, "run", "--config", "digits", *new, "--config.mesh.fsdp=3")
    assert not (tmp_path / "new").exists()
    sample = ["sample", "--workdir", trained]
    assert "from 0 to 2" in fails(capsys, *sample, "--labels", "0,5")
    assert "integers" in fails(capsys, *sample, "--labels", "cat")
    assert "an integer from 1" in fails(capsys, *sample, "--steps", "0")
    assert ".npz" in fails(capsys, *sample, "--out", tmp_path / "a.gif")
    edit = ["edit", "inpaint", "--workdir", trained, "--images", tmp_path, "--out", tmp_path / "e.png"]
    assert "no image files" in fails(capsys, *edit)
    missing = ["--config.data.path=" + str(tmp_path / "nowhere")]
    assert "nowhere" in fails(capsys, "train", "--stage", "autoencoder", "--config", "image_folder", *new, *missing)


def test_another_config_is_refused(tmp_path, trained, capsys):
    said = fails(capsys, "run", "--config", "digits", "--workdir", trained)
    assert "has another config" in said
    assert "prior.width" in said


def test_mismatched_stages_are_refused(tmp_path, trained, capsys):
    """An autoencoder is not trained further where there is a prior; if it was, it cannot use the old codes and their prior."""
    workdir = shutil.copytree(trained, tmp_path / "copy")
    further = [
        "train",
        "--stage",
        "autoencoder",
        "--workdir",
        str(workdir),
        "--config.autoencoder_training.num_steps=8",
    ]
    assert "learned the codes of the autoencoder as it is" in fails(capsys, *further)
    shutil.move(workdir / "prior", tmp_path / "prior")
    main(further)
    shutil.move(tmp_path / "prior", workdir / "prior")
    assert "trained on codes of autoencoder" in fails(capsys, "sample", "--workdir", workdir)
    longer = "--config.prior_training.num_steps=8"
    assert "run `binlatent encode` again" in fails(capsys, "train", "--stage", "prior", "--workdir", workdir, longer)
