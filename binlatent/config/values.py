"""Checks names and types of values against the fields of a dataclass, with messages that say what is expected."""

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
    """`; did you mean a or b?`, or an empty string if no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is valid for a declared type: a type of `KINDS`, or a tuple or union of them.

    Numbers must be finite and not bool; a list is accepted as a tuple. Other types accept everything.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        if not fits(value, tuple):
            return False
        if parts[-1] is Ellipsis:
            return all(fits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(fits, value, parts))
    if kind in (int, float):
        number = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, (tuple, list) if kind is tuple else kind) if kind in KINDS else True


def expected(kind: Any) -> str:
    """Describes what `fits` accepts, for messages: `an integer`, `a tuple of numbers`."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        first, *rest = typing.get_args(kind)
        items = KINDS[first].split()[-1] + "s"
        return f"a tuple of {items}" if rest == [Ellipsis] else f"a tuple of {1 + len(rest)} {items}"
    return KINDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def check_values(where: str, cls: type, values: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> None:
    """Checks values against the fields of a dataclass or module. None is accepted here and checked when it is built.

    Args:
      where: the name of the section, for messages.
      without: fields that cannot be set.

    Raises:
      UserError: a name is not a field (the message suggests similar ones), or a value has the wrong type.
    """
    declared = {f.name: f for f in dataclasses.fields(cls) if f.name not in without}
    for name, value in values.items():
        if name not in declared:
            hint = nearest(name, declared) or f"; there are {', '.join(declared)}"
            raise UserError(f"{where} has no key {name!r}{hint}")
        kind = declared[name].type
        if value is not None and not fits(value, kind):
            raise UserError(f"{where}: {name} is {value!r}: {expected(kind)} is expected")
