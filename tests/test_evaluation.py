"""A work directory is scored: every part, resumed where it stood, with every setting beside every number."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.evaluate.result import read_parts
from binlatent.evaluation import Evaluation, EvaluationOptions, train_features
from binlatent.experiment import Experiment
from binlatent.train.metrics import read_records
from tests import tiny

OPTIONS = EvaluationOptions(num=24, likelihood_num=4, likelihood_steps=3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    Experiment.open(folder / "run", tiny.config(tiny.npz(folder))).run()
    train_features(folder / "run", num_steps=4, batch_size=8)
    return folder / "run"


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def parts(workdir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(workdir / "cache"))
        return Evaluation.open(workdir).run(options=OPTIONS)


def test_every_part_is_scored_and_named(parts, workdir):
    assert set(parts) == {"reconstruction", "code", "likelihood", "generation"}
    keys = {score.key for part in parts.values() for score in part.scores}
    assert {"psnr", "l1", "bits_per_bit", "bit_entropy", "classifier/frechet_distance", "classifier/kernel_distance",
            "classifier/precision", "classifier/coverage", "classifier/accuracy"} <= keys  # fmt: skip
    names = " ".join(score.name for part in parts.values() for score in part.scores)
    assert "FID" not in names and "Fréchet distance (classifier features)" in names
    refused = {name for part in parts.values() for name in part.refused}
    assert "SSIM" in refused and "LPIPS" in refused  # images of 8 pixels, no weights
    assert all(np.isfinite(score.value) for part in parts.values() for score in part.scores)
    assert len(parts["generation"].tables["classes (classifier features)"]) == 3
    assert len(parts["likelihood"].curves["bound by time"]["bits per bit"]) == 3
    total = sum(parts["likelihood"].curves["bound by time"]["bits per bit"])
    assert total == pytest.approx(parts["likelihood"].scores[0].value)


def test_every_number_has_its_settings(parts, workdir):
    stored = json.loads((workdir / "scores.json").read_text())["parts"]
    generation = stored["generation"]["settings"]
    assert generation["samples"] == 24 and generation["seed"] == 0
    assert {"steps", "guidance", "temperature", "posterior", "last_step"} <= set(generation["sampling"])
    assert generation["checkpoint steps"] == {"autoencoder": 6, "prior": 6}
    assert {"jax", "binlatent", "numpy"} <= set(generation["versions"])
    reference = generation["references"]["classifier"]
    assert len(reference["hash"]) == 16 and reference["network"]["name"] == "classifier" and reference["split"] == "train"
    assert any("biased" in note for note in generation["notes"])
    assert read_parts(workdir / "scores.json").keys() == parts.keys()
    for stage, key in (("autoencoder", "evaluation/psnr"), ("prior", "evaluation/classifier/frechet_distance")):
        assert any(key in record for record in read_records(workdir / stage))


def test_done_parts_are_not_computed_again(parts, workdir, capsys, monkeypatch):
    evaluation = Evaluation.open(workdir)
    monkeypatch.setattr(type(evaluation.pipeline), "reconstruct", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(type(evaluation.pipeline), "sample_batches", lambda *_, **__: pytest.fail("computed again"))
    evaluation.run(options=OPTIONS)
    assert capsys.readouterr().out.count("done with these settings") == 4
    with pytest.raises(pytest.fail.Exception):
        evaluation.run(["reconstruction"], OPTIONS, again=True)


def test_other_settings_are_computed(parts, workdir):
    evaluation = Evaluation.open(workdir)
    other = dataclasses.replace(OPTIONS, sampling={"steps": 2, "posterior": "plugin"})
    again = evaluation.run(["generation"], other)
    assert again["generation"].settings["sampling"]["posterior"] == "plugin"
    assert again["generation"].settings["content"] != parts["generation"].settings["content"]
    assert again["generation"].settings["references"] == parts["generation"].settings["references"]


def test_one_device_equals_eight(parts, workdir):
    from binlatent.train.sharding import MeshShape

    evaluation = Evaluation.open(workdir, features=["classifier"])
    pipeline = dataclasses.replace(evaluation.pipeline, mesh=MeshShape().build(jax.devices()[:1]), batch_size=7)
    alone = dataclasses.replace(evaluation, pipeline=pipeline).run(options=OPTIONS, again=True)
    for name, part in parts.items():
        for ours, theirs in zip(alone[name].scores, part.scores, strict=True):
            # a pixel that rounds the other way moves a feature a little
            assert ours.value == pytest.approx(theirs.value, rel=1e-3, abs=1e-4), ours.key


def test_reference_file_of_another_network_is_refused(parts, workdir, tmp_path):
    (tmp_path / "f.py").write_text("def features(images):\n    return images.reshape(len(images), -1)[:, :4]\n")
    file = next((workdir / "evaluation").glob("reference-*.npz"))
    evaluation = Evaluation.open(workdir, features=[str(tmp_path / "f.py")], reference=str(file))
    with pytest.raises(UserError, match="its feature network is"):
        evaluation.run(["generation"], OPTIONS)


def test_what_is_missing_is_refused_with_what_to_do(workdir, tmp_path):
    with pytest.raises(UserError, match="binlatent convert-features inception"):
        Evaluation.open(workdir, features=["inception"])
    with pytest.raises(UserError, match="no part 'fid'"):
        Evaluation.open(workdir).run(["fid"], OPTIONS)
    with pytest.raises(UserError, match="no work directory"):
        Evaluation.open(tmp_path)
    with pytest.raises(UserError, match="each can be named once"):
        Evaluation.open(workdir, features=["classifier", "classifier"])
    with pytest.raises(UserError, match="at least 1"):
        EvaluationOptions(num=0)


def test_broken_models_are_refused(workdir):
    evaluation = Evaluation.open(workdir)
    broken = dataclasses.replace(
        evaluation.pipeline.autoencoder,
        params=jax.tree.map(lambda x: x * np.nan, evaluation.pipeline.autoencoder.params),
    )
    evaluation = dataclasses.replace(evaluation, pipeline=dataclasses.replace(evaluation.pipeline, autoencoder=broken))
    with pytest.raises(UserError, match="NaN or infinity"):
        evaluation.run(["reconstruction"], OPTIONS)
    with pytest.raises(UserError, match="NaN or infinity"):
        evaluation.run(["generation"], OPTIONS)
