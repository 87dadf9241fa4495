"""What one part of an evaluation found, as JSON data: numbers, never without the settings that produced them."""

import dataclasses
import itertools
import json
import math
import os
from typing import Any

from etils import epath

from binlatent.console import say
from binlatent.errors import UserError

FORMAT = "binlatent scores 3"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One number.

    Attributes:
      key: of machines, as `inception/frechet_distance`.
      name: of people, as `FID`.
      value: the number.
      error: its uncertainty, and `error_kind` which one.
      unit: empty for none.
      better: `lower`, `higher`, or empty where neither is.
    """

    key: str
    name: str
    value: float
    error: float | None = None
    error_kind: str = ""
    unit: str = ""
    better: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What `reconstruction`, `generation`, `likelihood` or `code` found.

    Attributes:
      settings: everything that the numbers depend on.
      scores: the numbers.
      skipped: scores that could not be computed, with the reason.
      tables: name → rows, a dict each.
      curves: name → numbers to draw.
      seconds: how long it took.
    """

    settings: dict[str, Any]
    scores: list[Score]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    curves: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def plain(value: Any) -> Any:
    """JSON data of anything here: tuples as lists, numbers that are not finite as null."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_parts(path: epath.PathLike) -> dict[str, EvaluationResult]:
    """The parts in a `scores.json`; none where there is no file.

    Raises:
      UserError: the file is not one of these.
    """
    path = epath.Path(path)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT!r}")
        return {
            name: EvaluationResult(**(part | {"scores": [Score(**score) for score in part["scores"]]}))
            for name, part in content["parts"].items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); move it away and evaluate again") from error


def write_parts(path: epath.PathLike, parts: dict[str, EvaluationResult]) -> None:
    """Writes a `scores.json` atomically."""
    write_json(path, {"format": FORMAT, "parts": parts})


def write_json(path: epath.PathLike, content: Any) -> None:
    """Writes JSON atomically."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    if "://" in os.fspath(path):  # an object store writes whole files anyway
        path.write_text(text)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def append_record(folder: epath.PathLike, step: int, part: EvaluationResult) -> None:
    """Adds one line to the `metrics.jsonl` of a stage: the scores of a part, as `evaluation/<key>`."""
    path = epath.Path(folder) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    record = {"step": step} | {f"evaluation/{score.key}": plain(score.value) for score in part.scores}
    path.write_text(before + json.dumps(record) + "\n")


def print_parts(parts: dict[str, EvaluationResult], skipped: dict[str, str]) -> None:
    """The scores as lines of text, and what is missing with the reason."""
    for name, part in parts.items():
        say(f"{name} ({part.seconds:.1f} s)")
        for score in part.scores:
            error = "" if score.error is None else f" ± {score.error:.3g}"
            say(f"  {score.name}: {score.value:.5g}{error} {score.unit}".rstrip())
    missing = skipped | dict(itertools.chain.from_iterable(part.skipped.items() for part in parts.values()))
    for name, reason in missing.items():
        say(f"not scored: {name}: {reason}")
