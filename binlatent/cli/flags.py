"""Command-line flags from the fields of dataclasses, with the field's name, type, default and documentation.

A command is a frozen dataclass. Each field is a flag, whose help is its entry under `Attributes:` in the docstring. A
field made by `nested` is another dataclass, whose fields become flags too. A field made by `changes` is a dict of those
fields of a dataclass that are set on the command line; the others come from the work directory's config.
"""

import argparse
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

# The minimum and maximum of numbers, by name of the flag, which has the same meaning in every command.
LIMITS: dict[str, tuple[float, float]] = {
    "batch_size": (1, 65_536),
    "devices": (1, 4096),
    "likelihood_num": (1, 10_000_000),
    "likelihood_steps": (1, 100_000),
    "num": (1, 10_000_000),
    "num_processes": (1, 1_000_000),
    "num_steps": (1, 1_000_000_000),
    "passes": (1, 1000),
    "port": (0, 65_535),
    "reference_num": (2, 1_000_000_000),
    "seconds": (0.001, 3600),
    "seed": (0, 2**32 - 1),
    "start_timeout": (1, 86_400),
    "steps": (1, 1_000_000),
    "temperature": (1e-6, 1e6),
}


class Command:
    """The base class of commands: frozen dataclasses whose fields are flags and whose docstring is the help."""

    resumable: ClassVar[bool] = False  # whether running it again resumes from the last checkpoint

    def run(self) -> None:
        """Runs the command.

        Raises:
          UserError: it cannot be carried out.
        """
        raise NotImplementedError


def flag(
    default: Any = dataclasses.MISSING, *, metavar: str | None = None, positional: bool = False, repeated: bool = False
) -> Any:
    """A field that is a flag, required if it has no default; `metavar` is the name of its value in the help. A `repeated`
    flag is a tuple of the values of all its occurrences, which may contain commas."""
    return dataclasses.field(
        default=default, metadata={"metavar": metavar, "positional": positional, "repeated": repeated}
    )


def hidden(default: Any) -> Any:
    """A field that is not a flag."""
    return dataclasses.field(default=default, metadata={"hidden": True})


def changes(cls: type, *, many: Sequence[str] = ()) -> Any:
    """A field of type dict: the fields of `cls` that are set; those in `many` take comma-separated values."""
    return dataclasses.field(metadata={"changes": cls, "many": tuple(many)})


def nested(cls: type, *, without: Sequence[str] = (), **defaults: Any) -> Any:
    """A field of type `cls`, whose fields become flags; `defaults` override those of `cls`."""
    return dataclasses.field(metadata={"nested": cls, "without": tuple(without), "defaults": defaults})


def add(parser: argparse.ArgumentParser, command: type[Command]) -> None:
    """Adds the flags of a command.

    Raises:
      TypeError: the type of a field cannot be a flag.
    """
    for field in _flags(command):
        meta = field.metadata
        if inner := meta.get("changes"):
            texts = help_texts(inner)
            for part in dataclasses.fields(inner):
                kind = types.GenericAlias(tuple, (part.type, ...)) if part.name in meta["many"] else part.type
                text = f"{texts.get(part.name, '')} (default: the config's)"
                _add(parser, part.name, kind, None, text, optional=True, commas=part.name in meta["many"])
        elif inner := meta.get("nested"):
            texts = help_texts(inner)
            for part in _parts(inner, meta):
                default = meta["defaults"].get(part.name, part.default)
                _add(parser, part.name, part.type, default, texts.get(part.name), **_presentation(part.metadata))
        else:
            texts = help_texts(command)
            _add(parser, field.name, field.type, field.default, texts.get(field.name), **_presentation(meta))


def read(command: type[Command], args: argparse.Namespace, **others: Any) -> Command:
    """Constructs the command from argparse's result; `others` are its hidden fields.

    Raises:
      UserError: a dataclass rejects its values.
    """
    parsed = vars(args)
    values = dict(others)
    for field in _flags(command):
        meta = field.metadata
        if inner := meta.get("changes"):
            names = [part.name for part in dataclasses.fields(inner)]
            values[field.name] = {name: parsed[name] for name in names if parsed[name] is not None}
        elif inner := meta.get("nested"):
            values[field.name] = inner(**{part.name: _tuple(parsed[part.name]) for part in _parts(inner, meta)})
        else:
            values[field.name] = _tuple(parsed[field.name])
    return command(**values)


def _tuple(value: Any) -> Any:
    """A tuple of a list, which is what argparse makes of a positional or a repeated flag."""
    return tuple(value) if isinstance(value, list) else value


def help_texts(cls: type) -> dict[str, str]:
    """The documentation of each field in the `Attributes:` sections of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")[2].split("\n\n")[0]
        for names, text in re.findall(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", section, re.MULTILINE):
            texts |= dict.fromkeys(names.split(", "), " ".join(text.split()).removesuffix("."))
    return texts


def summary(cls: type) -> str:
    """The first paragraph of a class's docstring, on one line and without the final full stop."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")


def _flags(command: type) -> Iterator[dataclasses.Field]:
    return (field for field in dataclasses.fields(command) if not field.metadata.get("hidden"))


def _parts(inner: type, meta: Any) -> list[dataclasses.Field]:
    return [part for part in dataclasses.fields(inner) if part.name not in meta["without"]]


def _presentation(meta: Any) -> dict[str, Any]:
    names = ("positional", "repeated")
    return {"metavar": meta.get("metavar")} | {name: meta.get(name, False) for name in names}


def _add(
    parser: argparse.ArgumentParser,
    name: str,
    kind: Any,
    default: Any,
    text: str | None,
    *,
    metavar: str | None = None,
    positional: bool = False,
    repeated: bool = False,
    optional: bool = False,
    commas: bool = False,
) -> None:
    text = (text or "").replace("%", "%%")
    required = default is dataclasses.MISSING and not optional
    if not required and default is not None and default is not False and default != ():
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text} (default: {shown})".strip()
    kind, options = _without_none(kind), {"help": text, "metavar": metavar}
    if typing.get_origin(kind) is typing.Literal:
        options |= {"choices": typing.get_args(kind)}
    elif kind is bool and default is False:
        parser.add_argument(f"--{name}", action="store_true", help=text)
        return
    elif repeated:
        reader = _reader(name, typing.get_args(kind)[0])
        parser.add_argument(f"--{name}", action="append", type=reader, default=[], **options)
        return
    elif positional and typing.get_origin(kind) is tuple:
        parser.add_argument(name, nargs="*", default=default, type=_reader(name, typing.get_args(kind)[0]), **options)
        return
    else:
        options |= {"type": _reader(name, kind)}
    if positional:
        parser.add_argument(name, **options)
    else:
        if not metavar and "choices" not in options:
            several = typing.get_origin(kind) is tuple and (commas or ... in typing.get_args(kind))
            options["metavar"] = "V,V" if several else {int: "N", float: "X"}.get(kind, "V")
        parser.add_argument(f"--{name}", required=required, default=None if required else default, **options)


def _without_none(kind: Any) -> Any:
    """X | None → X."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kinds = [part for part in typing.get_args(kind) if part is not types.NoneType]
        if len(kinds) == 1:
            return kinds[0]
    return kind


def _reader(name: str, kind: Any) -> Callable[[str], Any]:
    """A function from text to a value; for invalid text it raises argparse's error, which names the flag."""
    kind = _without_none(kind)
    readers: dict[Any, Callable[[str], Any]] = {
        str: _text,
        int: lambda text: _number(name, text, int, "an integer"),
        float: lambda text: _number(name, text, float, "a finite number"),
        bool: _truth,
    }
    if kind in readers:
        return readers[kind]
    if typing.get_origin(kind) is typing.Literal:
        return lambda text: _choice(text, typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        if len(parts) == 2 and parts[1] is ...:
            one = _reader(name, parts[0])
            return lambda text: tuple(one(part.strip()) for part in text.split(","))
        return lambda text: _fixed(text, [_reader(name, part) for part in parts])
    raise TypeError(f"--{name}: no flag can be of type {kind}")


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: a value is expected")
    return text


def _number(name: str, text: str, kind: type, expected: str) -> int | float:
    least, largest = LIMITS.get(name, (-math.inf, math.inf))
    if name in LIMITS:
        expected = f"{expected} from {least:,} to {largest:,}"
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {expected} is expected") from None
    if not math.isfinite(value) or not least <= value <= largest:
        raise argparse.ArgumentTypeError(f"{text}: {expected} is expected")
    return value


def _truth(text: str) -> bool:
    return _choice(text.lower(), ("true", "false")) == "true"


def _choice(text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise argparse.ArgumentTypeError(f"{text!r}: {' or '.join(choices)} is expected")
    return text


def _fixed(text: str, readers: list[Callable[[str], Any]]) -> tuple:
    parts = text.split(",")
    if len(parts) != len(readers):
        raise argparse.ArgumentTypeError(f"{text!r}: {len(readers)} comma-separated values are expected")
    return tuple(reader(part.strip()) for reader, part in zip(readers, parts, strict=True))
