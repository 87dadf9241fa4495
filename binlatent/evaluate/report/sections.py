"""Gathers the contents of a work directory's `report.html`."""

import json

import numpy as np
from etils import epath

from binlatent import config as config_lib
from binlatent.checkpoint import versions
from binlatent.data.loader import spread_images
from binlatent.evaluate.evaluation import Evaluation
from binlatent.evaluate.report import figures
from binlatent.evaluate.report.page import Picture, Report, render
from binlatent.evaluate.result import read_parts
from binlatent.evaluate.sweep import read_sweep, score_keys, series
from binlatent.experiment import ALL_STAGES
from binlatent.images import comparison_grid, image_grid
from binlatent.previews import sample_grid
from binlatent.train.goodput import summary
from binlatent.train.metrics import read_records

COLUMNS = 8  # images per row, and states of the film strip
CLASSES = 10  # classes in the grid of samples
WIDTH = 64  # approximate width of one image on the page, in pixels


def write_report(evaluation: Evaluation, *, seed: int = 0) -> epath.Path:
    """Writes `report.html` of a work directory: losses, reconstructions, samples, a film strip of one sampling run,
    scores, sweep, bit statistics and all settings, as far as they exist.

    Args:
      seed: of the samples.

    Returns:
      Its path.
    """
    workdir, pipeline = evaluation.experiment.workdir, evaluation.pipeline
    rows, sweep_settings = read_sweep(evaluation)
    names = sweep_settings.get("score_names", {})
    both = pipeline.autoencoder is not None and pipeline.prior is not None
    stages = [stage for stage in (*ALL_STAGES, "classifier") if (workdir / stage / "metrics.jsonl").exists()]
    records = {stage: read_records(workdir / stage) for stage in stages}
    report = Report(
        title=workdir.name or str(workdir),
        facts=_facts(evaluation, records),
        config=config_lib.to_json(evaluation.experiment.config),
        records=records,
        parts=read_parts(evaluation.scores_file),
        sweep=[{_heading(key, names): value for key, value in row.items()} for row in rows],
        sweep_settings=sweep_settings,
        sweep_curves={names.get(key, key): series(rows, key) for key in score_keys(rows)},
        reconstructions=_reconstructions(evaluation) if pipeline.autoencoder is not None else None,
        samples=_samples(evaluation, seed) if both else None,
        film=_film(evaluation, seed) if both else (),
    )
    path = evaluation.file("report.html")
    path.write_text(render(report))
    return path


def _heading(key: str, names: dict[str, str]) -> str:
    """The heading of a sweep's column: a score's name, or ± and the name for its uncertainty."""
    score = key.removesuffix("_error")
    return f"± {names[score]}" if score != key and score in names else names.get(key, key)


def _facts(evaluation: Evaluation, records: dict[str, list[dict]]) -> dict:
    """A short description of the model; `records` are those of each stage's `metrics.jsonl`."""
    import jax

    pipeline, data = evaluation.pipeline, evaluation.data
    y, x, k = pipeline.code_shape
    facts = {
        "images": f"{data.resolution} × {data.resolution} × {data.channels}, from {evaluation.splits.train!r}",
        "training images": len(evaluation.splits.train),
        "validation images": len(evaluation.splits.validation),
        "code": f"{y} × {x} tokens of {k} bits = {y * x * k} bits per image",
    }
    for name in ("autoencoder", "prior"):
        if half := getattr(pipeline, name):
            count = sum(leaf.size for leaf in jax.tree.leaves(half.params))
            name = "student" if name == "prior" and pipeline.student else name
            facts[name] = f"{count:,} EMA parameters of step {half.step}"
            times = [r for r in records.get(name, ()) if "time/goodput" in r]
            if times:  # of the process that made the last evaluation
                values = {key.removeprefix("time/"): x for key, x in times[-1].items() if key.startswith("time/")}
                facts[f"time of {name}"] = summary(values)
    return facts | {"versions": json.dumps(versions())}


def _reconstructions(evaluation: Evaluation) -> Picture:
    images = spread_images(evaluation.splits.validation, evaluation.data, 4 * COLUMNS)
    columns = min(COLUMNS, len(images))
    count = len(images) // columns * columns
    return Picture(
        image=comparison_grid(images, evaluation.pipeline.reconstruct(images), columns),
        width=columns * WIDTH,
        caption=f"{count} validation images, spread evenly over the set, each with its reconstruction below (thresholded code).",
    )


def _samples(evaluation: Evaluation, seed: int) -> Picture:
    pipeline, given = evaluation.pipeline, evaluation.conditions()
    options = pipeline.options()
    names, columns, num, condition = evaluation.splits.class_names, COLUMNS, COLUMNS**2, "without a condition"
    if evaluation.captions:
        condition = "with these captions of validation images: " + "; ".join(evaluation.captions[:num])
    elif given is not None and given.values.label is not None:
        shown = given.values.label[:CLASSES]
        given, columns, num = pipeline.conditions(labels=shown), len(shown), 6 * len(shown)
        condition = "one class per column: " + ", ".join(names[label] if names else str(label) for label in shown)
    elif given is not None:
        condition = "with the embeddings of validation images"
    return Picture(
        image=sample_grid(pipeline, given, seed=seed, num=num, columns=columns),
        width=columns * WIDTH,
        caption=f"Samples, seed {seed}, {condition}. {_described(options)}",
    )


def _film(evaluation: Evaluation, seed: int) -> tuple[Picture, Picture]:
    """One sampling run from noise to an image: the decoded states, and their bits."""
    pipeline, given = evaluation.pipeline, evaluation.conditions()
    options = pipeline.options()
    run = next(iter(pipeline.sample_batches(seed=seed, num=1, condition=given, trajectory=True)))
    states = run.states[:, 0]
    shown = np.unique(np.linspace(0, len(states) - 1, COLUMNS).round().astype(int))
    listed = ", ".join(str(step) for step in shown)
    return (
        Picture(
            image=image_grid(pipeline.decode(states[shown]), len(shown), shortest=64 * len(shown)),
            width=len(shown) * WIDTH,
            caption=f"The code decoded after {listed} of {options.steps} steps; seed {seed}, sample 0. {_described(options)}",
        ),
        Picture(
            image=image_grid(figures.bit_picture(states[shown]), len(shown), shortest=64 * len(shown)),
            width=len(shown) * WIDTH,
            caption="The bits of the same states: one block per token, set bits dark.",
        ),
    )


def _described(options) -> str:
    return (
        f"{options.steps} steps, guidance {options.guidance:g}, temperature {options.temperature:g}, posterior "
        f"{options.posterior}, last step {options.last_step}."
    )
