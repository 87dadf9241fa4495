"""Whether values fit the fields of a dataclass: names and types, each mistake with what was expected."""

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from binlatent.errors import UserError

KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "a string", tuple: "a tuple"}


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def fits(value: Any, kind: type) -> bool:
    """Whether a value may stand where `kind` (a key of `KINDS`) is declared. A number is finite, and no bool is one."""
    if kind in (int, float):
        number = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, (tuple, list) if kind is tuple else kind)


def check_values(where: str, cls: type, values: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """Compares values with the fields of a dataclass or module. None is accepted: whoever builds it says what is missing.

    Args:
      where: what the values configure, for messages.
      without: fields that may not be given.

    Raises:
      UserError: a name that is no field (the nearest ones are named), or a value of another type.
    """
    declared = {f.name: f for f in dataclasses.fields(cls) if f.name not in without}
    for name, value in values.items():
        if name not in declared:
            hint = nearest(name, declared) or f"; there are {', '.join(declared)}"
            raise UserError(f"{where} has no key {name!r}{hint}")
        kind = _kind(declared[name])
        if value is not None and kind is not None and not fits(value, kind):
            raise UserError(f"{where}: {name} is {value!r}: {KINDS[kind]} is expected")


def _kind(field: dataclasses.Field) -> type | None:
    """The one type of `KINDS` that a field is declared with; None where it takes others."""
    declared = field.type
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        return None
    declared = typing.get_origin(declared) or declared
    return declared if declared in KINDS else None
