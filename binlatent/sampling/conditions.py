"""What samples are conditioned on: classes by number or name, or embeddings, cycled over the examples."""

import dataclasses
import difflib
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from binlatent.errors import UserError

NULL = "none"  # labels that ask for the null condition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of examples 0, 1, 2, …: `values` in turn.

    Attributes:
      values: labels int32 (n,) or embeddings (n, …).
    """

    values: np.ndarray

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Conditions of the examples `index` (b,), labels int32 or embeddings float32; nothing else is copied."""
        rows = self.values[index % len(self.values)]
        return rows if rows.dtype == np.int32 else rows.astype(np.float32)


def conditions(labels: Any, metadata: Mapping[str, Any]) -> Conditions | None:
    """The conditions that a caller asks for; None for the null condition.

    Args:
      labels: None or "none"; a class or several, by number or name; or embeddings (n, …).
      metadata: of the prior's checkpoint: `num_classes`, `class_names`, `condition_shape`.

    Raises:
      UserError: no such class, embeddings of another shape or not finite, or conditions for a model that takes none.
    """
    if labels is None or (isinstance(labels, str) and labels == NULL):
        return None
    shape, num_classes = tuple(metadata["condition_shape"]), metadata["num_classes"]
    if shape:
        return Conditions(values=_embeddings(labels, shape))
    if not num_classes:
        raise UserError("labels are given, but this model was trained without classes")
    return Conditions(values=_classes(labels, num_classes, tuple(metadata.get("class_names") or ())))


def _embeddings(given: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"conditions: {error}") from error
    found = values.shape[1:]
    # 0: any number of text tokens, in an imported model
    if len(found) != len(shape) or any(n not in (m, 0) for m, n in zip(found, shape, strict=True)):
        raise UserError(f"conditions of shape {values.shape} given, (n, {', '.join(map(str, shape))}) expected")
    if not len(values):
        raise UserError("no conditions given: at least one is expected, or None")
    if not (values.dtype.kind in "fiu" or values.dtype.name == "bfloat16") or not np.isfinite(values).all():
        raise UserError(f"conditions of type {values.dtype} given: finite numbers are expected, without NaN")
    return values


def _classes(given: Any, num_classes: int, names: tuple[str, ...]) -> np.ndarray:
    items = [given] if isinstance(given, str) or np.ndim(given) == 0 else list(given)
    if not items:
        raise UserError("no labels given: name at least one class, None, or 'none' for the null condition")
    number = {name: i for i, name in enumerate(names)}
    known = f"integers from 0 to {num_classes - 1}" + (f" or names ({', '.join(names[:20])})" if names else "")
    found = []
    for item in items:
        if isinstance(item, str) and item in number:
            found.append(number[item])
        elif isinstance(item, numbers.Integral) and not isinstance(item, bool) and 0 <= item < num_classes:
            found.append(int(item))
        else:
            near = difflib.get_close_matches(item, names, n=3) if isinstance(item, str) else ()
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UserError(f"label {item!r} is no class: {known} are expected{hint}")
    return np.asarray(found, np.int32)
