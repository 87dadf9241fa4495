"""The notebook, top to bottom, on a CPU, with a config that trains in seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).parents[2]
SHORT = [f"{stage}_training.{key}=4" for stage in ("autoencoder", "prior") for key in ("num_steps", "evaluate_every")]
SMALL = ["autoencoder.channels=32", "prior.width=32", "prior.depth=1", "prior.heads=2", "sampling.steps=4"]


def script(**settings):
    """The code cells as one script, with the form's values replaced."""
    notebook = json.loads((ROOT / "launch/colab.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])  # no pictures in the repository
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    for name, value in settings.items():
        lines = [line for line in text.splitlines() if line.startswith(f"{name} = ") and "@param" in line]
        assert len(lines) == 1, name
        text = text.replace(lines[0], f"{name} = {value!r}")
    return text


def execute(folder, text, overrides):
    env = os.environ | {
        "BINLATENT_OVERRIDES": " ".join(overrides), "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=env, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_digits(tmp_path):
    printed = execute(tmp_path, script(), SHORT + SMALL)
    assert "an image of 512 bits becomes a code of 128" in printed
    assert (tmp_path / "runs/colab/samples/samples.png").exists()


@pytest.mark.slow
def test_own_pictures(tmp_path):
    from PIL import Image

    for i, image in enumerate(tiny.images(80, 16, 3)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    printed = execute(tmp_path, script(IMAGES=str(tmp_path), SIDE=16, WORKDIR="w"), [*SHORT, *SMALL])
    assert "an image of 6144 bits becomes a code of" in printed
