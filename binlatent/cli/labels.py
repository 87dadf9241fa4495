"""`--labels`: classes by number or name."""

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from binlatent.console import say, warn
from binlatent.errors import UserError

if TYPE_CHECKING:
    from binlatent.pipeline import Pipeline

MOST_NAMED = 20  # labels that are reported by name


def choose_labels(text: str | None, model: "Pipeline", guidance: float) -> list[int] | None:
    """The classes that `--labels` asks for: by number or name; all of the model's in turn for None; none for `none`.

    What a person might miss is reported: guidance that has no effect, and a model whose conditions cannot be given here.

    Raises:
      UserError: the model has no prior or no classes, or no such class.
    """
    num_classes = model.num_classes
    metadata = model.prior.metadata
    if text is not None and text.strip().lower() != "none":
        if not num_classes:
            raise UserError(f"--labels {text}: this model was trained without classes; leave the labels out")
        labels = parse_labels(text, num_classes, metadata.get("class_names") or ())
        _report(labels, metadata.get("class_names") or ())
        return labels
    if text is None and num_classes:
        return list(range(num_classes))
    if metadata["condition_shape"]:
        warn("the model is conditioned on embeddings; without them it samples its null condition")
    if guidance:
        reason = "the labels are none" if num_classes else "no condition is given"
        warn(f"guidance {guidance:g} has no effect: {reason}")
    return None


def parse_labels(text: str, num_classes: int, names: Sequence[str] = ()) -> list[int]:
    """Classes of `text`: numbers or names with commas between. A number is always a class number, never a name.

    Raises:
      UserError: no such class; names like it are suggested.
    """
    number = {name: i for i, name in enumerate(names)}
    found = []
    for part in (part.strip() for part in text.split(",")):
        if re.fullmatch("[0-9]{1,9}", part) and int(part) < num_classes:
            found.append(int(part))
        elif part in number:
            found.append(number[part])
        else:
            near = difflib.get_close_matches(part, names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            what = f"integers from 0 to {num_classes - 1}" + (" or class names" if names else "")
            raise UserError(f"--labels: {part[:80]!r} is no class: {what} with commas between are expected{hint}")
    return found


def _report(labels: Sequence[int], names: Sequence[str]) -> None:
    """Number and name of each class, where the name says more than the number."""
    named = [f"{i} ({names[i]})" for i in dict.fromkeys(labels) if i < len(names) and names[i] != str(i)]
    if named:
        say(f"labels: {', '.join(named[:MOST_NAMED])}{', …' if len(named) > MOST_NAMED else ''}")
