"""Scores of samples over a grid of sampling settings, for example a curve over 4, 8, 16, … steps."""

import dataclasses
import itertools
import json
from typing import Any

from binlatent.console import progress, say
from binlatent.diffusion.process import POSTERIORS
from binlatent.errors import UserError
from binlatent.evaluate.evaluation import Evaluation
from binlatent.evaluate.options import EvaluationOptions
from binlatent.evaluate.report import figures
from binlatent.evaluate.result import EvaluationResult, plain, write_json

AXES = ("steps", "guidance", "temperature", "posterior")
FORMAT = "binlatent sweep 3"
TABLE_WIDTH = 110  # characters of a line of the printed table
HEADINGS = {  # short names for the printed table
    "frechet_distance": "Fréchet", "spatial_frechet_distance": "spatial", "kernel_distance": "kernel",
    "inception_score": "IS",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The values along every axis; None is the work directory's own setting."""

    steps: tuple[int | None, ...] = (4, 8, 16, 32, 64)
    guidance: tuple[float | None, ...] = (None,)
    temperature: tuple[float | None, ...] = (None,)
    posterior: tuple[str | None, ...] = (None,)

    def __post_init__(self):
        for axis in AXES:
            if not getattr(self, axis):
                raise UserError(f"the sweep has no value of {axis}; give at least one")
        for posterior in self.posterior:
            if posterior not in (None, *POSTERIORS):
                raise UserError(f"no posterior {posterior!r}; there are {', '.join(POSTERIORS)}")
        for steps in self.steps:
            if steps is not None and steps < 1:
                raise UserError(f"steps {steps}: at least 1 is expected")

    def cells(self) -> list[dict[str, Any]]:
        """All combinations, as changes to the sampling options."""
        return [dict(zip(AXES, values, strict=True)) for values in itertools.product(*(getattr(self, a) for a in AXES))]


def read_sweep(evaluation: Evaluation) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Reads (rows, settings) of the work directory's `sweep.json`; empty if there is none.

    Raises:
      UserError: the file is not a `sweep.json` of this version.
    """
    path = evaluation.file("sweep.json")
    if not path.exists():
        return [], {}
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT!r}")
        return content["rows"], content["settings"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); move it away and sweep again") from error


def sweep(evaluation: Evaluation, grid: Grid, options: EvaluationOptions) -> list[dict[str, Any]]:
    """Scores every cell of a grid; writes `sweep.json` after each, and `sweep.svg` at the end.

    Cells already in `sweep.json` are kept if all other settings are unchanged; otherwise the table starts anew, because a
    table never mixes checkpoints, seeds or references.

    Raises:
      UserError: there is no feature network, or a setting is out of range.
    """
    if not evaluation.networks:
        raise UserError("; ".join(evaluation.skipped.values()))
    cells = [{axis: getattr(evaluation.pipeline.options(**cell), axis) for axis in AXES} for cell in grid.cells()]
    settings = plain(evaluation.requested("generation", options))
    settings["sampling"] = {key: value for key, value in settings["sampling"].items() if key not in AXES}
    path, (rows, known) = evaluation.file("sweep.json"), read_sweep(evaluation)
    if any(known.get(key) != value for key, value in settings.items()):
        if rows:
            say(f"sweep: settings differ from those of {path.name}, which is started anew")
        rows, known = [], settings
    with progress(len(cells), "sweep", "cell") as bar:
        for i, cell in enumerate(cells):
            if not any(all(row[axis] == cell[axis] for axis in AXES) for row in rows):
                say(f"sweep: {i + 1} of {len(cells)}: " + ", ".join(f"{axis} {value}" for axis, value in cell.items()))
                part = evaluation.part("generation", dataclasses.replace(options, sampling=options.sampling | cell))
                rows.append(plain(cell | _scores(part) | {"seconds": part.seconds}))
                rows.sort(key=lambda row: (row["posterior"], row["guidance"], row["temperature"], row["steps"]))
                known = settings | {key: part.settings[key] for key in ("references", "notes", "devices")}
                known["score_names"] = {score.key: score.name for score in part.scores}
                write_json(path, {"format": FORMAT, "settings": known, "rows": rows})
            bar.update()
    if not (keys := score_keys(rows)):
        raise UserError(f"no score could be computed of {options.num} samples a cell; ask for more (--num)")
    first = keys[0]
    name = known["score_names"].get(first, first)
    svg = figures.curves(name, series(rows, first), x="steps", log=True, ink="#333333")
    evaluation.file("sweep.svg").write_text(svg)
    return rows


def _scores(part: EvaluationResult) -> dict[str, float]:
    """Scores by key, with uncertainties as `<key>_error`."""
    scores = {}
    for score in part.scores:
        scores[score.key] = score.value
        if score.error is not None:
            scores[f"{score.key}_error"] = score.error
    return scores


def score_keys(rows: list[dict[str, Any]]) -> list[str]:
    """The keys of the scores in a sweep's rows, without axes, uncertainties and seconds."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if "/" in key and not key.endswith("_error")]


def series(rows: list[dict[str, Any]], score: str) -> dict[str, tuple[tuple, tuple]]:
    """A score against the steps: a curve for every combination of the other axes, named by the axes that vary."""
    varying = [axis for axis in AXES[1:] if len({row[axis] for row in rows}) > 1]
    points: dict[str, list] = {}
    for row in rows:
        if row.get(score) is not None:
            name = ", ".join(str(row[a]) if a == "posterior" else f"{a} {row[a]:g}" for a in varying)
            points.setdefault(name or score, []).append((row["steps"], row[score]))
    return {name: tuple(zip(*sorted(curve), strict=True)) for name, curve in points.items()}


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Prints the sweep as a table of at most `TABLE_WIDTH` characters: the steps, the axes that vary, and the scores that
    fit."""
    keys, axes = score_keys(rows), [axis for axis in AXES if axis == "steps" or len({row[axis] for row in rows}) > 1]
    several = len({key.partition("/")[0] for key in keys}) > 1
    columns = []
    for key in [*axes, "seconds", *keys]:
        network, _, score = key.rpartition("/")
        heading = HEADINGS.get(score, score)
        values = [row.get(key, "") for row in rows]
        texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        column = [f"{network} {heading}" if network and several else heading, *texts]
        width = max(map(len, column))
        columns.append([text.rjust(width) for text in column])
    shown = columns
    while len("  ".join(column[0] for column in shown)) > TABLE_WIDTH and len(shown) > len(axes):
        shown = shown[:-1]
    for line in zip(*shown, strict=True):
        say("  ".join(line))
    if len(shown) < len(columns):
        say(f"the file has {len(columns) - len(shown)} more scores per cell")
