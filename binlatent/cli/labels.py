"""`--labels`: classes by number or name."""

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from binlatent.console import say, warn
from binlatent.errors import UserError

if TYPE_CHECKING:
    from binlatent.pipeline import Pipeline

MOST_NAMED = 20  # labels reported by name


def choose_labels(
    text: str | None, model: "Pipeline", guidance: float, *, given: bool = False, flag: str = "labels"
) -> list[int] | None:
    """The classes of `--labels`: numbers or names; None: all of the model's classes in turn; `none`: no class.

    Warns if guidance has no effect, and if the model's conditions are not given.

    Args:
      given: whether there are conditions other than labels.
      flag: the name of the option in messages.

    Raises:
      UserError: the model has no prior, no classes, or no such class.
    """
    num_classes = model.num_classes
    metadata = model.prior.metadata
    if text is not None and text.strip().lower() != "none":
        if not num_classes:
            raise UserError(f"--{flag} {text}: this model was trained without classes; omit the labels")
        labels = parse_labels(text, num_classes, metadata.get("class_names") or (), flag)
        _report(labels, metadata.get("class_names") or ())
        return labels
    if text is None and num_classes and not given:
        return list(range(num_classes))
    if given:
        return None
    if metadata.get("text") or metadata["condition_shape"]:
        what = "texts; without --prompt" if metadata.get("text") else "embeddings; without --condition or --prompt"
        warn(f"the model is conditioned on {what} it samples its null condition")
    if guidance:
        reason = "the labels are none" if num_classes else "no condition is given"
        warn(f"guidance {guidance:g} has no effect: {reason}")
    return None


def parse_labels(text: str, num_classes: int, names: Sequence[str] = (), flag: str = "labels") -> list[int]:
    """Parses comma-separated class numbers or names. A number is never taken as a name.

    Raises:
      UserError: there is no such class; the message suggests similar names.
    """
    number = {name: i for i, name in enumerate(names)}
    labels = []
    for part in (part.strip() for part in text.split(",")):
        if re.fullmatch("[0-9]{1,9}", part) and int(part) < num_classes:
            labels.append(int(part))
        elif part in number:
            labels.append(number[part])
        else:
            near = difflib.get_close_matches(part, names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            expected = f"integers from 0 to {num_classes - 1}" + (" or class names" if names else "")
            raise UserError(f"--{flag}: {part[:80]!r} is not a class: comma-separated {expected} are expected{hint}")
    return labels


def _report(labels: Sequence[int], names: Sequence[str]) -> None:
    """Reports number and name of each class whose name is not its number."""
    named = [f"{i} ({names[i]})" for i in dict.fromkeys(labels) if i < len(names) and names[i] != str(i)]
    if named:
        say(f"labels: {', '.join(named[:MOST_NAMED])}{', …' if len(named) > MOST_NAMED else ''}")
