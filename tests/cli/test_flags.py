"""Flags from dataclasses: names, types, defaults and help; and how commands end."""

import argparse
import dataclasses
import subprocess
import sys
from typing import Any, Literal

import pytest

from binlatent.cli import flags
from binlatent.cli import main as cli
from binlatent.cli.score import SWEPT, Evaluate, Sweep
from binlatent.cli.train import Run
from binlatent.errors import UserError
from binlatent.evaluate.sweep import AXES
from binlatent.sampling.options import SamplingOptions
from binlatent.train.preemption import Preempted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Options.

    Attributes:
      size: of everything.
      span, scale: of what is
        left at 100 %.
    """

    size: int = 3
    span: tuple[float, float] = (0.0, 1.0)
    scale: float | None = None
    exact: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(flags.Command):
    """Do a thing
    well.

    Attributes:
      kind: of thing.
      where: it lies.
      files: to read.
      loud: or not.
    """

    kind: Literal["a", "b"] = flags.flag(positional=True)
    where: str
    files: tuple[str, ...] = ()
    loud: bool = False
    secret: int = flags.hidden(7)
    inner: Inner = flags.nested(Inner, without=("exact",), size=4)


def parsed(command, argv, **others):
    parser = argparse.ArgumentParser()
    flags.add(parser, command)
    return flags.read(command, parser.parse_args(argv), **others), parser.format_help()


def test_fields_become_flags():
    made, text = parsed(Example, ["b", "--where", "x", "--files", "p,q", "--loud", "--span", "0.1,0.9"], secret=8)
    inner = Inner(size=4, span=(0.1, 0.9))
    assert made == Example(kind="b", where="x", files=("p", "q"), loud=True, secret=8, inner=inner)
    text = " ".join(text.split())
    assert "of everything (default: 4)" in text and "of what is left at 100 %" in text
    assert "--exact" not in text and "--secret" not in text
    assert flags.summary(Example) == "Do a thing well"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changing(flags.Command):
    """Change."""

    options: dict[str, Any] = flags.changes(Inner, many=("size",))


def test_changes_hold_only_the_given_flags():
    assert parsed(Changing, [])[0].options == {}
    assert parsed(Changing, ["--size", "4,8", "--exact", "false"])[0].options == {"size": (4, 8), "exact": False}


def test_a_field_that_cannot_be_a_flag_is_a_type_error():
    @dataclasses.dataclass
    class Wrong(flags.Command):
        """Wrong."""

        where: dict[str, int]

    with pytest.raises(TypeError, match="--where"):
        flags.add(argparse.ArgumentParser(), Wrong)


def test_every_flag_says_what_it_is():
    """Every field of every command has an entry in a docstring, and the sampling options appear by themselves."""
    subparsers = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(subparsers) == set(cli.COMMANDS)
    silent = [(n, a.dest) for n, p in subparsers.items() for a in p._actions if not (a.help or "").strip(" ()")]
    assert not silent
    for name in ("sample", "edit", "evaluate", "sweep"):
        dests = {action.dest for action in subparsers[name]._actions}
        assert {field.name for field in dataclasses.fields(SamplingOptions)} <= dests, name


def test_the_axes_of_a_sweep_take_several_values():
    assert SWEPT == AXES
    command = cli.parse(["sweep", "--workdir", "w", "--steps", "4,8", "--last_step", "argmax"])
    assert isinstance(command, Sweep) and command.options.num == 2000
    assert command.sampling == {"steps": (4, 8), "last_step": "argmax"}


def test_options_of_an_evaluation_are_typed():
    command = cli.parse(["evaluate", "--workdir", "w", "--num", "5", "--guidance", "1.5", "--only", "code,report"])
    assert isinstance(command, Evaluate) and command.options.num == 5
    assert command.sampling == {"guidance": 1.5} and command.only == ("code", "report")


def test_config_keys_with_and_without_an_equals_sign():
    argv = ["run", "--config", "c", "--config.data.path", "a b", "--workdir", "w", "--config.prior.width=3"]
    command = cli.parse([*argv, "--config.seed", "-1"])
    assert isinstance(command, Run) and command.config == "c" and command.workdir == "w"
    assert command.overrides == ("data.path=a b", "prior.width=3", "seed=-1")
    with pytest.raises(SystemExit):  # the value is there already
        cli.parse(["run", "--workdir", "w", "--config.prior.width=3", "stray"])


@pytest.mark.parametrize(
    ("flag", "least", "largest", "wrong"),
    [
        ("--seed", "0", "4294967295", ["-1", "4294967296", "1.0", "nan"]),
        ("--num", "1", "10000000", ["0", "10000001"]),
        ("--guidance", "-1e30", "1e30", ["inf", "-inf", "nan", "x"]),
        ("--temperature", "1e-6", "1e6", ["0", "1e7", "nan"]),
    ],
)
def test_numbers_have_limits(flag, least, largest, wrong):
    for text in (least, largest):
        cli.parse(["sample", "--workdir", "w", f"{flag}={text}"])
    for text in wrong:
        with pytest.raises(SystemExit):
            cli.parse(["sample", "--workdir", "w", f"{flag}={text}"])


def ended(monkeypatch, capsys, error, command="run"):
    """(status, standard output, standard error) of a command that raises `error`."""

    def fail(self):
        raise error

    class Left(Exception):
        pass

    def leave(status):
        raise Left(status)

    monkeypatch.setattr(cli.COMMANDS[command], "run", fail)
    monkeypatch.setattr(cli.os, "_exit", leave)
    try:
        cli.main([command, "--workdir", "w"])
        status = 0
    except SystemExit as stopped:
        status = stopped.code
    except Left as left:
        status = f"immediately: {left}"
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "error", "status", "words"),
    [
        ("run", UserError("no such thing"), 2, ["binlatent: no such thing"]),
        ("run", OSError(28, "No space left on device", "w/x"), 2, ["w/x: No space left", "resumes from the last"]),
        ("run", KeyboardInterrupt(), "immediately: 130", ["stopped immediately", "resumes from the last checkpoint"]),
        ("info", KeyboardInterrupt(), 130, ["stopped"]),
        ("run", MemoryError(), 2, ["out of memory", "batch size", "micro_batches"]),
        ("info", RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), 2, ["out of memory", "9 bytes"]),
        ("info", BrokenPipeError(), 141, []),
    ],
)
def test_how_a_command_ends(monkeypatch, capsys, command, error, status, words):
    found, _, printed = ended(monkeypatch, capsys, error, command)
    assert found == status
    assert not [word for word in words if word not in printed], printed


def test_advice_fits_the_command(monkeypatch, capsys):
    """`info` has no checkpoint to resume from."""
    status, _, printed = ended(monkeypatch, capsys, PermissionError(13, "Permission denied", "/x"), "info")
    assert status == 2 and printed == "binlatent: /x: Permission denied\n"


@pytest.mark.parametrize(("interrupted", "status"), [(False, 0), (True, 130)])
def test_a_run_that_was_asked_to_stop_says_so(monkeypatch, capsys, interrupted, status):
    """After the cluster's notice with status 0, after Ctrl-C with the status of shells."""
    error = Preempted("prior", 5, interrupted=interrupted)
    found, printed, _ = ended(monkeypatch, capsys, error)
    assert found == status and printed == f"{error}\n"


def test_other_errors_are_not_hidden(monkeypatch, capsys):
    with pytest.raises(ZeroDivisionError):
        ended(monkeypatch, capsys, ZeroDivisionError())


def test_a_file_name_that_is_not_utf_8_is_printed():
    code = "from binlatent.console import say; say('a\\udcff.png × 2')"
    env = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(cli.__file__).rsplit("/binlatent/", 1)[0]}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == "a\\udcff.png \\xd7 2\n"
