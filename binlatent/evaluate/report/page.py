"""`report.html`: a self-contained page about a work directory, with a light and a dark mode."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from binlatent.evaluate.report import figures
from binlatent.evaluate.result import EvaluationResult, plain

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1d2024; --soft: #666c74; --line: #d9dade; --card: #f3f4f2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e3e4e2; --soft: #989ea6; --line: #34383d; --card: #1d2024; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, figcaption { color: var(--soft); margin: .3rem 0; max-width: 60rem; }
.wide { overflow-x: auto; } .row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; }
.settings { font-size: .8rem; } .settings td { color: var(--soft); overflow-wrap: anywhere; }
figure { margin: .5rem 0; } img { image-rendering: pixelated; max-width: 100%; height: auto; display: block; }
svg { max-width: 100%; height: auto; }
button { font: inherit; font-size: .75rem; color: var(--soft); background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; padding: .05rem .5rem; cursor: pointer; margin: .2rem 0; }
summary { cursor: pointer; color: var(--soft); }
"""

# A click copies the table: as text with tabs for spreadsheets, as a table for documents.
SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) button.onclick = () => {
  const range = document.createRange(), chosen = getSelection();
  range.selectNode(document.getElementById(button.dataset.copy));
  chosen.removeAllRanges(); chosen.addRange(range); document.execCommand("copy"); chosen.removeAllRanges();
  button.textContent = "copied"; setTimeout(() => button.textContent = "copy", 1200);
};
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

# Training metrics that are plotted, besides those with `loss` in their name.
PLOTTED = (
    "loss",
    "psnr",
    "bits_per_bit",
    "bit_entropy",
    "dead_bits",
    "bit_correlation",
    "accuracy",
    "learning_rate",
    "gap",
)

# Settings shown beside the scores, in addition to sampling options, checkpoint steps and the references' hashes.
MAIN_SETTINGS = (
    "samples",
    "images",
    "codes",
    "seed",
    "split",
    "reference_split",
    "likelihood_steps",
    "posterior",
    "condition",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture (h, w, c) uint8 and its caption; `width` in pixels of the page, by default the picture's own."""

    image: np.ndarray
    caption: str
    width: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The contents of a report. Where something is empty, its section says which command fills it.

    Attributes:
      title: of the page.
      facts: a short description of the model.
      config: every setting of the work directory, by its full key.
      records: stage → records of its `metrics.jsonl`.
      parts: of `scores.json`.
      sweep: rows of `sweep.json`, with settings and scores by name.
      sweep_settings: the settings that all rows share.
      sweep_curves: score → curve → (steps, values).
      reconstructions, samples, film: pictures.
    """

    title: str
    facts: Mapping[str, Any]
    config: Mapping[str, Any]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    parts: Mapping[str, EvaluationResult]
    sweep: Sequence[Mapping[str, Any]] = ()
    sweep_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sweep_curves: Mapping[str, dict[str, tuple[Sequence, Sequence]]] = dataclasses.field(default_factory=dict)
    reconstructions: Picture | None = None
    samples: Picture | None = None
    film: Sequence[Picture] = ()


def render(report: Report) -> str:
    """Renders the page as HTML."""
    tables = _Tables()
    sections = [
        f"<header><h1>{escape(report.title)}</h1>{tables.settings('', report.facts)}</header>",
        _scores(report, tables),
        _section(
            "Reconstructions", [_figure(report.reconstructions)] if report.reconstructions else [], "binlatent run"
        ),
        _section("Samples", [_figure(report.samples)] if report.samples else [], "binlatent run"),
        _section("One sampling run, step by step", [_figure(p) for p in report.film], "binlatent run"),
        _section("Score against sampling steps", _sweep(report, tables), "binlatent sweep"),
        _section("Likelihood by time", _likelihood(report.parts), "binlatent evaluate"),
        _section("Bits", _bits(report.parts), "binlatent evaluate"),
        _section("Training", [_training(name, records) for name, records in report.records.items()], "binlatent run"),
        _section("Configuration", [tables.settings("configuration", report.config)], ""),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


class _Tables:
    """HTML tables with a button that copies them."""

    def __init__(self):
        self._count = 0

    def rows(self, rows: Sequence[Mapping[str, Any]], kind: str = "") -> str:
        """One row per mapping; columns in order of first occurrence."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join("<tr>" + "".join(_cell(row.get(column, "")) for column in columns) + "</tr>" for row in rows)
        return self._table(f"<tr>{head}</tr>{body}", kind)

    def settings(self, title: str, values: Mapping[str, Any]) -> str:
        """Names and values, flattened to full keys."""
        flat = _flatten(plain(dict(values)))
        body = "".join(f"<tr><th>{escape(key)}</th><td>{escape(_text(value))}</td></tr>" for key, value in flat.items())
        table = self._table(body, "settings")
        return f"<details><summary>{escape(title)}: {len(flat)} settings</summary>{table}</details>" if title else table

    def _table(self, content: str, kind: str) -> str:
        self._count += 1
        name = f"table{self._count}"
        button = f'<button data-copy="{name}">copy</button>'
        return f'<div class=wide>{button}<table id="{name}" class="{kind}">{content}</table></div>'


def _section(title: str, contents: Sequence[str], command: str) -> str:
    body = "".join(contents) or f"<p>Nothing here yet: run <code>{escape(command)}</code>.</p>"
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _figure(picture: Picture) -> str:
    image = figures.picture(picture.image, picture.caption, width=picture.width)
    return f"<figure class=wide>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def _scores(report: Report, tables: _Tables) -> str:
    contents = []
    for name, part in report.parts.items():
        rows = [
            {
                "score": score.name,
                "value": score.value,
                "±": "" if score.error is None else score.error,
                "unit": score.unit,
                "better": score.better,
                "kind of ±": score.error_kind,
            }
            for score in part.scores
        ]
        contents.append(
            f"<h3>{escape(name.capitalize())}</h3><p>{escape(_main_settings(part.settings))}</p>" + tables.rows(rows)
        )
        contents += [f"<p>{escape(note)}</p>" for note in part.settings.get("notes", ())]
        contents += [f"<p>Not scored: {escape(what)}: {escape(why)}</p>" for what, why in part.skipped.items()]
        contents += [f"<h3>{escape(title)}</h3>{tables.rows(table)}" for title, table in part.tables.items()]
        contents.append(tables.settings(f"settings of {name}", part.settings | {"seconds": part.seconds}))
    return _section("Scores", contents, "binlatent evaluate")


def _main_settings(settings: Mapping[str, Any]) -> str:
    """The most important settings as text; all of them are in the table below."""
    flat = _flatten(plain(dict(settings)))
    shown = []
    for key, value in flat.items():
        short = key.removeprefix("sampling.").removeprefix("references.")
        if key.startswith(("sampling.", "checkpoint_steps.")) or key in MAIN_SETTINGS or key.endswith(".hash"):
            shown.append(f"{short} {_text(value)}")
    return ", ".join(shown)


def _sweep(report: Report, tables: _Tables) -> list[str]:
    if not report.sweep:
        return []
    plots = [figures.curves(score, lines, x="steps", log=True) for score, lines in report.sweep_curves.items()]
    settings = tables.settings("settings of the sweep", report.sweep_settings)
    return [f"<div class=row>{''.join(plots)}</div>", tables.rows(report.sweep), settings]


def _likelihood(parts: Mapping[str, EvaluationResult]) -> list[str]:
    if "likelihood" not in parts:
        return []
    bound = parts["likelihood"].curves["bound_by_time"]
    figure = figures.steps(
        "Negative ELBO by time", bound["time"], bound["bits_per_bit"], x="t (0 is data, 1 is noise)", y="bits per bit"
    )
    return [figure, "<p>The bars add up to the bits per bit above.</p>"]


def _bits(parts: Mapping[str, EvaluationResult]) -> list[str]:
    if "code" not in parts:
        return []
    curves = parts["code"].curves
    contents = [figures.bars("How often each bit is set", curves["bit_mean"], x="bit", line=0.5)]
    if "bit_correlation" in curves:
        image = figures.matrix(curves["bit_correlation"])
        caption = "Correlations between bits: red 1, white 0, blue −1"
        contents.append(_figure(Picture(image=image, caption=caption, width=220)))
    return [f"<div class=row>{''.join(contents)}</div>"]


def _training(stage: str, records: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(key.partition("/")[2] for record in records for key in record if "/" in key)
    figures_ = []
    for name in names:
        if name not in PLOTTED and "loss" not in name:
            continue
        series = {}
        for kind in ("train", "validation"):
            points = [
                (r["step"], r[f"{kind}/{name}"]) for r in records if isinstance(r.get(f"{kind}/{name}"), int | float)
            ]
            if points:
                series[kind] = tuple(zip(*points, strict=True))
        if series:
            figures_.append(figures.curves(f"{stage}: {name}", series, x="step"))
    for key in dict.fromkeys(key for record in records for key in record if key.startswith("evaluation/")):
        points = [(record["step"], record[key]) for record in records if isinstance(record.get(key), int | float)]
        if len({step for step, _ in points}) > 1:  # scores of several checkpoints
            name = key.removeprefix("evaluation/")
            figures_.append(figures.curves(f"{stage}: {name}", {name: tuple(zip(*points, strict=True))}, x="step"))
    return f"<h3>{escape(stage.capitalize())}</h3><div class=row>{''.join(figures_)}</div>"


def _cell(value: Any) -> str:
    kind = " class=number" if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(_text(value))}</td>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for i, item in enumerate(value):
                flat |= _flatten(item, f"{prefix}{key}.{i}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
