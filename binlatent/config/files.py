"""Configuration files: Python files with `get_config`, and the `config.json` of work directories."""

import ast
import functools
import inspect
import json
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from binlatent.config.build import defaults
from binlatent.config.values import expected, nearest
from binlatent.errors import UserError
from binlatent.files import run_python, user_path, write_atomic

REMOVED = {"sampling": ("time_power",)}  # keys of earlier work directories that trained nothing: left out
FORMAT = 3  # of config.json and what it describes; 0.1 wrote none, and priors of format 2 had other blocks


def shipped() -> dict[str, Path]:
    """Paths of the shipped configs, by name."""
    package = Path(__file__).parents[1]
    folder = next(f for f in (package / "configs", package.parent / "configs") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def load(config: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config by path, by shipped name, or from another work directory, with overrides `section.key=value`.

    `name:argument` passes the argument to `get_config`, as in `image_folder:128`.

    Raises:
      UserError: there is no such config, its `get_config` fails, or a key or value is invalid.
    """
    name, _, argument = config.partition(":")
    path = Path(name) if name.endswith(".py") else shipped().get(name)
    if path is None and (stored := user_path(config) / "config.json").exists():
        return override(read(stored), overrides)
    if path is None or not path.is_file():
        raise UserError(
            f"no config {name!r}: give a path to a .py file, a work directory, or one of {', '.join(shipped())}"
        )
    loaded = run_python(path, f"config {path}", functools.partial(_made, argument=argument))
    if not isinstance(loaded, ConfigDict):
        raise UserError(
            f"config {path}: get_config returned {type(loaded).__name__}; a ConfigDict is expected: begin with "
            "`config = binlatent.config.defaults()` and end with `return config`"
        )
    return override(loaded, overrides)


def _made(module: types.ModuleType, argument: str) -> Any:
    if not argument:
        return module.get_config()
    if not inspect.signature(module.get_config).parameters:
        raise TypeError(f"it takes no argument, leave :{argument} out")
    return module.get_config(argument)


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Returns the config with `section.key=value` replaced; values are Python literals, otherwise strings.

    Raises:
      UserError: there is no such key (the message suggests similar ones), or a value has the wrong type.
    """
    config = config.copy_and_resolve_references()
    known = _flatten(config)
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise UserError(f"--config.{item} has no value: write --config.{key}=VALUE")
        if key not in known:
            raise UserError(f"no config key {key!r}{nearest(key, known)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = {"true": True, "false": False}.get(text.lower(), text)
        kind = type(known[key])  # for None the type is unknown; the value is checked when it is used
        if kind is str and not isinstance(value, str):
            value = text
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 1e5 steps
        section, _, name = key.rpartition(".")
        target = config
        for part in filter(None, section.split(".")):
            target = target[part]
        try:
            target[name] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise UserError(
                f"--config.{key}={text}: {expected(kind)} is expected, got {type(value).__name__}"
            ) from error
    return config


def _flatten(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    return flatten_dict(values, sep=".")


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Converts a config to JSON data."""
    return json.loads(config.to_json())


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`; lists become tuples."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return tuple(plain(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(plain(values)).lock()


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two configs, with both values; `(absent)` for a missing key."""
    a, b = _flatten(to_json(old)), _flatten(to_json(new))
    pairs = {key: (a.get(key, "(absent)"), b.get(key, "(absent)")) for key in sorted(a.keys() | b.keys())}
    return {key: (x, y) for key, (x, y) in pairs.items() if x != y}


def check_network(config: ConfigDict, trained: dict[str, Any], stage: str, workdir: epath.PathLike) -> None:
    """Checks a stage's network config against the config that its checkpoint was trained with.

    Args:
      trained: the JSON config in the checkpoint.

    Raises:
      UserError: a key differs on which the shapes of the parameters depend.
    """
    names = {"autoencoder": ("autoencoder", "data"), "student": ("prior",)}.get(stage, (stage,))
    old = {key: value for key, value in _flatten(trained).items() if key.partition(".")[0] in names}
    new = _flatten(to_json(config))
    for key, value in old.items():
        if re.match(r"data\.(?!resolution|channels)|.*\.(dtype|remat)$", key) or new.get(key, value) == value:
            continue
        raise UserError(
            f"{workdir}: config.json says {key} = {new[key]!r}, but the {stage}'s checkpoint was trained with {value!r}: "
            "restore config.json"
        )


def write(path: epath.PathLike, config: ConfigDict) -> None:
    """Writes `config.json` atomically, as other processes may be reading it."""
    write_atomic(epath.Path(path), json.dumps(to_values(config), indent=1))


def to_values(config: ConfigDict) -> dict[str, Any]:
    """The JSON object of a `config.json`; the inverse is `parse`."""
    return {"format": FORMAT} | to_json(config)


def read(path: epath.PathLike) -> ConfigDict:
    """Reads a work directory's `config.json`. Keys added in later versions have their defaults.

    Raises:
      UserError: it is of another version of this package, unreadable, or not a config.
    """
    path = epath.Path(path)
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"a JSON object is expected, not {type(values).__name__}")
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise UserError(
            f"{path} cannot be read ({error}). Restore the file, or run the config again in a new --workdir."
        ) from error
    return parse(values, path)


def parse(values: dict[str, Any], path: epath.PathLike) -> ConfigDict:
    """The config of the JSON object of a `config.json`, which was found in `path`; otherwise as `read`."""
    values = dict(values)
    stored_format = values.pop("format", None)
    if stored_format != FORMAT:
        version = (
            "written by binlatent 0.1, whose config.json has no format"
            if stored_format is None
            else f"of format {stored_format!r}, written by another version of binlatent"
        )
        raise UserError(
            f"{path} is {version}; this version reads format {FORMAT}. Use the version that wrote it, or run the config "
            "again in a new --workdir."
        )
    values = _complete(values, path)
    try:
        return from_json(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # keys that a ConfigDict cannot have
        raise UserError(f"{path} is not a config: {error}") from error


def _complete(values: dict[str, Any], path: epath.PathLike) -> dict[str, Any]:
    """Adds keys of later versions to a JSON config, with defaults that do not change the run."""
    declared = to_json(defaults())
    for section, keys in REMOVED.items():
        if isinstance(values.get(section), dict):
            values = values | {section: {k: v for k, v in values[section].items() if k not in keys}}
    for name, value in values.items():
        if name not in declared:
            raise UserError(f"{path} has an unknown section {name!r}{nearest(name, declared)}")
        if isinstance(declared[name], dict) != isinstance(value, dict):
            raise UserError(f"{path}: {name} is {value!r}: an object is expected")

    def merge(default, value):
        sections = isinstance(default, dict) and isinstance(value, dict)
        if not sections or default.get("architecture") != value.get("architecture"):  # another network has other keys
            return value
        return {k: merge(default.get(k), value[k]) if k in value else default[k] for k in default | value}

    return merge(declared, values)
