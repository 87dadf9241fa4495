"""An exported model gives the pipeline's bits, without this package; its arrays are read by NumPy alone."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import export

import binlatent
from binlatent.cli.main import main
from binlatent.mesh import MeshShape, replicated

OPTIONS = {"steps": 3, "guidance": 1.5, "temperature": 0.8}


@pytest.fixture(scope="module", autouse=True)
def symbolic_sizes():
    """Sizes that are symbols are no ints, which annotations ask for."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    flags = [item for name, value in OPTIONS.items() for item in (f"--{name}", str(value))]
    main(["export", "--workdir", str(trained), "--out", str(folder), *flags])
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def model(trained):
    """The pipeline on one device, as exported functions are."""
    model, mesh = binlatent.load(trained), MeshShape().build(jax.devices()[:1])
    halves = {
        name: dataclasses.replace(half, params=jax.device_put(half.params, replicated(mesh)))
        for name, half in (("autoencoder", model.autoencoder), ("prior", model.prior))
    }
    return dataclasses.replace(model, mesh=mesh, **halves)


@pytest.fixture(scope="module")
def call(folder, model, manifest):
    trees = {"autoencoder": model.autoencoder.params, "prior": model.prior.params}
    params = jax.device_put(jax.device_get(flatten_dict(trees, sep="/")))

    def call(name, *arguments):
        content = (folder / manifest["functions"][name]["file"]).read_bytes()
        return [np.asarray(x) for x in export.deserialize(bytearray(content)).call(params, *arguments)]

    return call


@pytest.mark.parametrize("seed", [3, 2**32 - 1])
def test_samples_are_the_pipelines(model, call, seed):
    parts = list(model.sample_batches(seed=seed, num=5, labels=[2, 0], start=7, image_dtype="uint8", **OPTIONS))
    index, labels = np.arange(7, 12, dtype=np.uint32), np.array([0, 2, 0, 2, 0], np.int32)
    images, codes = call("sample", np.uint32(seed), index, np.float32(0.8), labels, np.float32(1.5))
    assert np.array_equal(codes, parts[0].codes)
    assert np.array_equal(images, parts[0].images)


@pytest.mark.parametrize("num", [1, 6])
def test_the_other_functions_are_the_pipelines_at_any_batch(model, call, num):
    images = np.random.default_rng(num).integers(0, 256, (num, 8, 8, 1), np.uint8)
    (codes,) = call("encode", images)
    assert np.array_equal(codes, model.encode(images))
    assert np.array_equal(call("decode", codes)[0], model.decode(codes))
    t, labels = np.linspace(0.1, 0.9, num, dtype=np.float32), np.arange(num, dtype=np.int32) % 3
    log_odds = call("denoise", codes, t, labels, np.ones(num, bool))[0]
    assert np.array_equal(log_odds, model.denoise(codes, t, label=labels))
    log_odds = call("denoise", codes, t, labels, np.zeros(num, bool))[0]
    np.testing.assert_allclose(log_odds, model.denoise(codes, t), atol=1e-5)


def test_the_manifest_says_what_is_there(folder, manifest, model):
    assert set(manifest["sha256"]) | {"manifest.json"} == {file.name for file in folder.iterdir()}
    for name, checksum in manifest["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    assert manifest["sampling"]["steps"] == 3
    assert manifest["functions"]["sample"]["arguments"] == [
        {"name": "seed", "shape": [], "dtype": "uint32"},
        {"name": "index", "shape": ["b"], "dtype": "uint32"},
        {"name": "temperature", "shape": [], "dtype": "float32"},
        {"name": "label", "shape": ["b"], "dtype": "int32"},
        {"name": "guidance", "shape": [], "dtype": "float32"},
    ]
    assert manifest["functions"]["sample"]["results"][0] == {
        "name": "images",
        "shape": ["b", 8, 8, 1],
        "dtype": "uint8",
    }
    assert manifest["parameters"]["prior/bits/kernel"] == {"shape": [16, 16], "dtype": "float32"}


def test_functions_hold_no_parameters(folder, manifest):
    size = (folder / "params.safetensors").stat().st_size
    assert size > 4 * sum(np.prod(array["shape"]) for array in manifest["parameters"].values())
    assert "params" not in manifest["functions"]["sample"]


def test_its_program_needs_jax_and_numpy_alone(folder, manifest, model, tmp_path):
    refused = ("binlatent", "flax", "safetensors", "optax", "orbax", "etils", "jaxtyping")
    code = f"import sys, runpy; sys.modules.update(dict.fromkeys({refused}))\n"
    code += f"sys.argv = ['run.py', '3', '4']; runpy.run_path('{folder}/run.py', run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with np.load(tmp_path / "samples.npz") as found:
        assert np.array_equal(
            found["images"], next(model.sample_batches(seed=3, num=4, image_dtype="uint8", **OPTIONS)).images
        )


@pytest.mark.slow
def test_it_runs_in_an_environment_of_jax_flatbuffers_and_numpy(folder, model, tmp_path):
    python, constraints = tmp_path / "venv/bin/python", Path(__file__).parents[2] / "launch/constraints.txt"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    wanted = ["install", "-q", "-c", constraints, "jax", "flatbuffers", "numpy"]
    installed = subprocess.run([python, "-m", "pip", *wanted], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"pip installs nothing here: {installed.stderr.strip().splitlines()[-1]}")
    shutil.copytree(folder, tmp_path / "elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "elsewhere/run.py", "3", "64"], cwd=tmp_path, env=environment, check=True)
    there = subprocess.run([python, "-c", "import binlatent"], cwd=tmp_path, env=environment, capture_output=True)
    assert b"No module named 'binlatent'" in there.stderr
    with np.load(tmp_path / "samples.npz") as found:
        again = next(model.sample_batches(seed=3, num=64, image_dtype="uint8", **OPTIONS))
        assert np.array_equal(found["images"], again.images)


def test_half_a_model(model, tmp_path):
    from binlatent.export.write import export_model

    options = model.options(steps=2, guidance=0.0)
    manifest = export_model(dataclasses.replace(model, autoencoder=None), tmp_path / "prior", options)
    assert list(manifest["functions"]) == ["denoise", "sample"]
    assert [entry["name"] for entry in manifest["functions"]["sample"]["results"]] == ["codes"]
    assert "guidance" not in [entry["name"] for entry in manifest["functions"]["sample"]["arguments"]]
    manifest = export_model(dataclasses.replace(model, prior=None), tmp_path / "autoencoder", options)
    assert list(manifest["functions"]) == ["encode", "decode"]
    ran = subprocess.run(
        [sys.executable, tmp_path / "autoencoder" / "run.py"], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 1 and ran.stderr == "no prior was exported: there is nothing that samples\n"
