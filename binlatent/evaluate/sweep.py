"""Scores of samples over a grid of sampling settings: the way to a curve over 4, 8, 16, … steps."""

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
HEADINGS = {  # of the printed table
    "frechet_distance": "Fréchet", "spatial_frechet_distance": "spatial", "kernel_distance": "kernel",
    "inception_score": "IS",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The values of every axis; None stands for the work directory's own setting."""

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
        """Every combination, as changes of sampling options."""
        return [dict(zip(AXES, values, strict=True)) for values in itertools.product(*(getattr(self, a) for a in AXES))]


def read_sweep(evaluation: Evaluation) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows, what they are of) of the work directory's `sweep.json`; empty where there is none.

    Raises:
      UserError: the file is not one of these.
    """
    path = evaluation.experiment.workdir / "sweep.json"
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
    """Scores every cell of a grid and writes `sweep.json` after each, and `sweep.svg` at the end.

    Cells that are there already are not computed again, as long as everything else is the same; otherwise the table
    begins anew, for a table never mixes checkpoints, seeds or references.

    Raises:
      UserError: there is no feature network, or a setting is out of range.
    """
    if not evaluation.networks:
        raise UserError("; ".join(evaluation.skipped.values()))
    cells = [{axis: getattr(evaluation.pipeline.options(**cell), axis) for axis in AXES} for cell in grid.cells()]
    settings = plain(evaluation.requested("generation", options))
    settings["sampling"] = {key: value for key, value in settings["sampling"].items() if key not in AXES}
    rows, known = read_sweep(evaluation)
    if any(known.get(key) != value for key, value in settings.items()):
        if rows:
            say("sweep: other settings than those of sweep.json, which is begun anew")
        rows, known = [], settings
    path = evaluation.experiment.workdir / "sweep.json"
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
    first = score_keys(rows)[0]
    name = known["score_names"].get(first, first)
    svg = figures.curves(name, series(rows, first), x="steps", log=True).replace("currentColor", "#333333")
    path.with_name("sweep.svg").write_text(svg)
    return rows


def _scores(part: EvaluationResult) -> dict[str, float]:
    """The scores by key, with their uncertainties as `<key>_error`."""
    found = {}
    for score in part.scores:
        found[score.key] = score.value
        if score.error is not None:
            found[f"{score.key}_error"] = score.error
    return found


def score_keys(rows: list[dict[str, Any]]) -> list[str]:
    """The keys of the scores in a sweep's rows, without axes, uncertainties and seconds."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if "/" in key and not key.endswith("_error")]


def series(rows: list[dict[str, Any]], score: str) -> dict[str, tuple[tuple, tuple]]:
    """A score against the steps, a line for every combination of the other axes; only axes that vary are named."""
    varying = [axis for axis in AXES[1:] if len({row[axis] for row in rows}) > 1]
    lines: dict[str, list] = {}
    for row in rows:
        if row.get(score) is not None:
            name = ", ".join(str(row[a]) if a == "posterior" else f"{a} {row[a]:g}" for a in varying)
            lines.setdefault(name or score, []).append((row["steps"], row[score]))
    return {name: tuple(zip(*sorted(points), strict=True)) for name, points in lines.items()}


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The sweep as a table of text of at most `TABLE_WIDTH` columns: the steps, the axes that vary, then scores as far as
    they fit.
    """
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
        say(f"{len(columns) - len(shown)} more scores of each cell are in sweep.json")
