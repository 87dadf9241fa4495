"""The results of an evaluation as JSON data: scores, with the settings that produced them."""

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
    """One score.

    Attributes:
      key: a stable identifier, such as `inception/frechet_distance`.
      name: as shown, such as `FID`.
      value: the score.
      error: its uncertainty, or None.
      error_kind: the kind of uncertainty, for example a standard error.
      unit: empty for none.
      better: `lower`, `higher`, or empty if neither is better.
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
    """The result of `reconstruction`, `generation`, `likelihood` or `code`.

    Attributes:
      settings: everything that the scores depend on.
      scores: the scores.
      skipped: scores that could not be computed, with the reason.
      tables: name → rows, each a dict.
      curves: name → numbers to plot.
      seconds: wall time.
    """

    settings: dict[str, Any]
    scores: list[Score]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    curves: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def plain(value: Any) -> Any:
    """Converts a value to JSON data: tuples to lists, arrays to lists, NaN and infinity to null."""
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
    """Reads the parts of a `scores.json`; empty if there is no file.

    Raises:
      UserError: the file is not a `scores.json` of this version.
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
    if "://" in os.fspath(path):  # object stores replace files atomically
        path.write_text(text)
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def append_record(folder: epath.PathLike, step: int, part: EvaluationResult) -> None:
    """Appends the scores of a part to the `metrics.jsonl` of a stage, as `evaluation/<key>`."""
    path = epath.Path(folder) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"step": step} | {f"evaluation/{score.key}": plain(score.value) for score in part.scores}
    line = json.dumps(record) + "\n"
    if "://" in os.fspath(path):  # object stores cannot append, and replace files atomically
        path.write_text((path.read_text() if path.exists() else "") + line)
        return
    with path.open("a") as file:
        file.write(line)


def print_parts(parts: dict[str, EvaluationResult], skipped: dict[str, str]) -> None:
    """Prints the scores, and the missing ones with the reason."""
    for name, part in parts.items():
        say(f"{name} ({part.seconds:.1f} s)")
        for score in part.scores:
            error = "" if score.error is None else f" ± {score.error:.3g}"
            say(f"  {score.name}: {score.value:.5g}{error} {score.unit}".rstrip())
    missing = skipped | dict(itertools.chain.from_iterable(part.skipped.items() for part in parts.values()))
    for name, reason in missing.items():
        say(f"not scored: {name}: {reason}")
