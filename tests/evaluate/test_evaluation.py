"""Evaluation of a work directory: all parts, resumed after interruptions, with all settings beside the scores."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.cli import main as cli
from binlatent.errors import UserError
from binlatent.evaluate.evaluation import Evaluation
from binlatent.evaluate.features import classifier_network
from binlatent.evaluate.options import EvaluationOptions
from binlatent.evaluate.report.sections import write_report
from binlatent.evaluate.result import read_parts
from binlatent.evaluate.sweep import Grid, print_rows, series, sweep
from binlatent.experiment import Experiment
from binlatent.nets.classifier import FeatureClassifier
from binlatent.nets.condition import Condition, Conditioning
from binlatent.pipeline import Pipeline
from binlatent.train.metrics import read_records
from binlatent.train.state import Trained
from tests import tiny

OPTIONS = EvaluationOptions(num=24, likelihood_num=4, likelihood_steps=3)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def half(net, name, metadata, *inputs):
    params = jax.jit(net.init)(jax.random.key(0), *inputs)["params"]
    return Trained(net=net, params=mesh_lib.gather(params, mesh_lib.MeshShape().build()), step=6, metadata=metadata)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """A work directory with an untrained model and an untrained classifier."""
    folder = tmp_path_factory.mktemp("evaluated")
    experiment = Experiment.open(folder / "run", tiny.config(tiny.npz(folder)))
    experiment.save_config()
    config, image = experiment.config, jnp.zeros((1, 8, 8, 1))
    net = config_lib.build_autoencoder(config)
    metadata = {"num_classes": 3, "condition_shape": [], "code_shape": list(net.code_shape), "autoencoder": ""}
    denoiser = config_lib.build_denoiser(config, net.code_shape, Conditioning(num_classes=3))
    code, label = jnp.zeros((1, *net.code_shape), bool), Condition(label=jnp.zeros(1, jnp.int32))
    pipeline = Pipeline(
        config=config,
        autoencoder=half(net, "autoencoder", {}, image),
        prior=half(denoiser, "prior", metadata, code, jnp.zeros(1), label),
        mesh=mesh_lib.MeshShape().build(),
    )
    classifier = FeatureClassifier(num_classes=3, width=8, num_features=32)
    network = classifier_network(classifier, jax.jit(classifier.init)(jax.random.key(1), image)["params"])
    return Evaluation(experiment=experiment, pipeline=pipeline, networks=(network,), skipped={"FID": "no weights"})


@pytest.fixture(scope="module")
def parts(evaluation):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(evaluation.experiment.workdir / "cache"))
        return evaluation.run(options=OPTIONS)


def test_every_part_is_scored_and_named(parts, evaluation):
    assert set(parts) == {"reconstruction", "code", "likelihood", "generation"}
    keys = {score.key for part in parts.values() for score in part.scores}
    assert {"psnr", "l1", "bits_per_bit", "bit_entropy", "classifier/frechet_distance", "classifier/kernel_distance",
            "classifier/precision", "classifier/coverage", "classifier/accuracy"} <= keys  # fmt: skip
    names = " ".join(score.name for part in parts.values() for score in part.scores)
    assert "FID" not in names and "Fréchet distance (classifier features)" in names
    skipped = {name for part in parts.values() for name in part.skipped}
    assert "SSIM" in skipped and "LPIPS" in skipped  # images of 8 pixels, no weights
    assert all(np.isfinite(score.value) for part in parts.values() for score in part.scores)
    assert len(parts["generation"].tables["classes (classifier features)"]) == 3
    assert len(parts["likelihood"].curves["bound_by_time"]["bits_per_bit"]) == 3
    total = sum(parts["likelihood"].curves["bound_by_time"]["bits_per_bit"])
    assert total == pytest.approx(parts["likelihood"].scores[0].value)


def test_every_number_has_its_settings(parts, evaluation):
    workdir = evaluation.experiment.workdir
    stored = json.loads((workdir / "scores.json").read_text())["parts"]
    generation = stored["generation"]["settings"]
    assert generation["samples"] == 24 and generation["seed"] == 0
    assert {"steps", "guidance", "temperature", "posterior", "last_step"} <= set(generation["sampling"])
    assert generation["checkpoint_steps"] == {"autoencoder": 6, "prior": 6}
    assert {"jax", "binlatent", "numpy"} <= set(generation["versions"])
    reference = generation["references"]["classifier"]
    assert (
        len(reference["hash"]) == 16 and reference["network"]["name"] == "classifier" and reference["split"] == "train"
    )
    assert any("biased" in note for note in generation["notes"])
    assert read_parts(workdir / "scores.json").keys() == parts.keys()
    for stage, key in (("autoencoder", "evaluation/psnr"), ("prior", "evaluation/classifier/frechet_distance")):
        assert any(key in record for record in read_records(workdir / stage))


def test_done_parts_are_not_computed_again(parts, evaluation, capsys, monkeypatch):
    monkeypatch.setattr(type(evaluation.pipeline), "reconstruct", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(type(evaluation.pipeline), "sample_batches", lambda *_, **__: pytest.fail("computed again"))
    evaluation.run(options=OPTIONS)
    assert capsys.readouterr().out.count("done with these settings") == 4
    with pytest.raises(pytest.fail.Exception):
        evaluation.run(["reconstruction"], OPTIONS, again=True)


def test_other_settings_are_computed(parts, evaluation):
    other = dataclasses.replace(OPTIONS, sampling={"steps": 2, "posterior": "plugin"})
    again = evaluation.run(["generation"], other)
    assert again["generation"].settings["sampling"]["posterior"] == "plugin"
    assert again["generation"].settings["content"] != parts["generation"].settings["content"]
    assert again["generation"].settings["references"] == parts["generation"].settings["references"]


def test_one_device_equals_eight(parts, evaluation):
    mesh, pipeline = mesh_lib.MeshShape().build(jax.devices()[:1]), evaluation.pipeline
    halves = {
        name: dataclasses.replace(half, params=mesh_lib.gather(half.params, mesh))
        for name, half in (("autoencoder", pipeline.autoencoder), ("prior", pipeline.prior))
    }
    pipeline = dataclasses.replace(pipeline, mesh=mesh, batch_size=7, **halves)
    alone = dataclasses.replace(evaluation, pipeline=pipeline).run(options=OPTIONS, again=True)
    for name, part in parts.items():
        for ours, theirs in zip(alone[name].scores, part.scores, strict=True):
            # a pixel that rounds the other way moves a feature a little
            assert ours.value == pytest.approx(theirs.value, rel=1e-3, abs=1e-4), ours.key


def test_reference_file(parts, evaluation, tmp_path):
    """A reference file gives the same scores as a computed one; one for another network is refused."""
    file = str(next(evaluation.folder.glob("reference-*.npz")))
    with_file = dataclasses.replace(evaluation, reference_file=file)
    again = with_file.part("generation", OPTIONS)
    assert [score.value for score in again.scores] == [score.value for score in parts["generation"].scores]
    other = dataclasses.replace(evaluation.networks[0], fingerprint="another")
    with pytest.raises(UserError, match="its feature network is"):
        dataclasses.replace(with_file, networks=(other,)).part("generation", OPTIONS)


def test_missing_requirements_say_what_to_do(evaluation, tmp_path):
    with pytest.raises(UserError, match="no work directory"):
        Evaluation.open(tmp_path)
    for name, said in (
        ("inception", "binlatent convert-features inception"),
        ("classifier", "binlatent train-classifier"),
        ("none.py", "no feature network none.py"),
    ):
        with pytest.raises(UserError, match=said):
            Evaluation.open(evaluation.experiment.workdir, features=[name])
    with pytest.raises(UserError, match="no part 'fid'"):
        evaluation.run(["fid"], OPTIONS)
    with pytest.raises(UserError, match="no weights"):
        dataclasses.replace(evaluation, networks=()).run(["generation"], OPTIONS)
    without = dataclasses.replace(evaluation, pipeline=dataclasses.replace(evaluation.pipeline, prior=None))
    with pytest.raises(UserError, match="generation needs a trained autoencoder and prior"):
        without.run(["generation"], OPTIONS)
    with pytest.raises(UserError, match="at least 1"):
        EvaluationOptions(num=0)


def test_too_few_samples_are_refused_or_right(evaluation):
    part = evaluation.part("generation", dataclasses.replace(OPTIONS, num=2, reference_num=2))
    assert "classifier/frechet_distance" in {score.key for score in part.scores}
    assert "neighbours need more than" in part.skipped["precision (classifier features)"]
    with pytest.raises(UserError, match="needs at least 2"):
        evaluation.part("generation", dataclasses.replace(OPTIONS, reference_num=1))


def test_broken_models_are_refused(evaluation):
    broken = dataclasses.replace(
        evaluation.pipeline.autoencoder,
        params=jax.tree.map(lambda x: x * np.nan, evaluation.pipeline.autoencoder.params),
    )
    evaluation = dataclasses.replace(evaluation, pipeline=dataclasses.replace(evaluation.pipeline, autoencoder=broken))
    for name in ("reconstruction", "generation"):
        with pytest.raises(UserError, match="NaN or infinity"):
            evaluation.part(name, OPTIONS)


def test_sweep_fills_a_grid_and_continues(evaluation, capsys):
    few = dataclasses.replace(OPTIONS, num=12)
    rows = sweep(evaluation, Grid(steps=(2, 4), posterior=("mixture",)), few)
    assert [(row["steps"], row["posterior"]) for row in rows] == [(2, "mixture"), (4, "mixture")]
    capsys.readouterr()
    more = sweep(evaluation, Grid(steps=(2, 4), posterior=("mixture", "plugin")), few)
    printed = capsys.readouterr()
    assert printed.out.count("sweep: ") == 2 and len(more) == 4 and "sweep: 100%" in printed.err  # a bar of cells
    assert [row for row in more if row["posterior"] == "mixture"] == rows
    assert not [key for row in more for key in row if " " in key]
    lines = series(more, "classifier/frechet_distance")
    assert {name: at for name, (at, _) in lines.items()} == {"mixture": (2, 4), "plugin": (2, 4)}
    stored = json.loads((evaluation.experiment.workdir / "sweep.json").read_text())
    assert stored["settings"]["samples"] == 12 and stored["settings"]["references"]["classifier"]["hash"]
    assert "steps" not in stored["settings"]["sampling"]
    assert (evaluation.experiment.workdir / "sweep.svg").read_text().startswith("<svg")
    print_rows(more)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["steps", "posterior", "seconds", "Fréchet"] and max(map(len, lines)) <= 110
    anew = sweep(evaluation, Grid(steps=(2,)), dataclasses.replace(few, seed=1))
    assert len(anew) == 1 and "started anew" in capsys.readouterr().out
    for wrong, said in (
        ({"steps": ()}, "no value of steps"),
        ({"steps": (4, 0)}, "steps 0"),
        ({"posterior": ("x",)}, "'x'"),
    ):
        with pytest.raises(UserError, match=said):
            Grid(**wrong)


def test_a_wide_sweep_is_printed_as_far_as_it_fits(capsys):
    row = {"steps": 4, "guidance": 0.0, "temperature": 1.0, "posterior": "mixture"}
    scores = ("frechet_distance", "precision", "recall", "density", "coverage")
    row |= {f"{name}/{score}": 1 / 3 for name in ("inception", "classifier") for score in scores}
    print_rows([row | {"seconds": 1.0}])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110 and "inception Fréchet" in lines[0] and "more scores" in lines[-1]


def test_generation_without_feature_networks_is_reported_as_skipped(trained, capsys, tmp_path):
    """Otherwise `--num` would be ignored silently."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    evaluation = dataclasses.replace(Evaluation.open(workdir), networks=(), skipped={"FID": "no weights here"})
    parts = evaluation.run([], OPTIONS)
    assert "generation" not in parts
    assert (
        "generation: skipped, no samples are drawn: there is no feature network (no weights here)"
        in capsys.readouterr().out
    )


def test_report_of_a_work_directory(parts, evaluation):
    page = write_report(evaluation).read_text()
    assert page.count("<img") >= 4  # reconstructions, samples, two film strips
    assert "one class per column" in page and "set bits dark" in page
    assert parts["generation"].settings["references"]["classifier"]["hash"] in page
    alone = dataclasses.replace(evaluation, pipeline=dataclasses.replace(evaluation.pipeline, prior=None))
    assert "Reconstructions" in write_report(alone).read_text()


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    """Training, the classifier, scores, a sweep and a reference, from the command line."""
    workdir = tmp_path / "run"
    Experiment.open(workdir, tiny.config(tiny.npz(tmp_path))).run()
    cli.main(["train-classifier", "--workdir", str(workdir), "--num_steps", "4", "--batch_size", "8"])
    cli.main(["evaluate", "--workdir", str(workdir), "--num", "12", "--likelihood_steps", "3", "--steps", "2"])
    said = capsys.readouterr().out
    assert "Fréchet distance (classifier features)" in said and "not scored: FID" in said
    assert (workdir / "report.html").exists()
    sweep_flags = ["--num", "8", "--steps", "2,4", "--posterior", "mixture,plugin"]
    cli.main(["sweep", "--workdir", str(workdir), *sweep_flags])
    assert len(json.loads((workdir / "sweep.json").read_text())["rows"]) == 4
    out = tmp_path / "reference.npz"
    cli.main(["reference", "--workdir", str(workdir), "--features", "classifier", "--out", str(out)])
    assert out.exists()
    with pytest.raises(SystemExit):
        cli.main(["reference", "--workdir", str(workdir), "--features", "inception"])
    assert "convert-features inception" in capsys.readouterr().err
