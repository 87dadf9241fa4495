"""`binlatent <command>`: parses the command line, runs a command, and turns errors into messages."""

import argparse
import dataclasses
import difflib
import os
import sys
from typing import NoReturn

from binlatent import __version__
from binlatent.cli import convert, edit, flags, machines, sample, score, share, train
from binlatent.errors import CheckpointError, UserError

COMMANDS: dict[str, type[flags.Command]] = {
    "run": train.Run,
    "train": train.Train,
    "encode": train.Encode,
    "sample": sample.Sample,
    "reconstruct": sample.Reconstruct,
    "edit": edit.Edit,
    "evaluate": score.Evaluate,
    "sweep": score.Sweep,
    "reference": score.Reference,
    "train-classifier": score.TrainClassifier,
    "convert": convert.Convert,
    "convert-features": convert.ConvertFeatures,
    "plan": machines.Plan,
    "bench": machines.Bench,
    "demo": share.Demo,
    "export": share.Export,
    "pack": share.Pack,
    "info": machines.Info,
}
OVERRIDE = "--config."
INTERRUPTED = 130  # exit status after Ctrl-C, as in shells
BROKEN_PIPE = 141  # exit status after a broken pipe, as in shells


class _Parser(argparse.ArgumentParser):
    """argparse with error messages on one line: the flag, the value, the expected form."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").removesuffix(".")
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="binlatent",
        description="Binary Latent Diffusion: images to bits, a diffusion model of the bits, new images.",
        epilog="Start with `binlatent run --config digits --workdir runs/digits`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"binlatent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        text = flags.summary(command).replace("%", "%%")
        sub = commands.add_parser(name, help=text[0].lower() + text[1:], description=f"{text}.", allow_abbrev=False)
        flags.add(sub, command)
    return parser


def parse(argv: list[str]) -> flags.Command:
    """Parses a command line. Invalid flags end the process with argparse's message and status 2.

    Raises:
      UserError: values contradict each other.
    """
    overrides, rest = _split_overrides(argv)
    for flag, _, value in (text.partition("=") for text in rest):
        if value == "--" and flag.startswith("--"):  # which argparse drops
            _fail(f"{flag}: '--' is no value")
    parser = _parser()
    args, unknown = parser.parse_known_args(rest)
    command = COMMANDS[args.command]
    takes_config = any(field.name == "overrides" for field in dataclasses.fields(command))
    if unknown or (overrides and not takes_config):
        argument = unknown[0] if unknown else f"{OVERRIDE}{overrides[0]}"
        known = [f"--{name}" for name in vars(args)]
        near = difflib.get_close_matches(argument.partition("=")[0], known, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        _fail(f"unknown argument {argument!r}{hint}; see `binlatent {args.command} --help`")
    return flags.read(command, args, **({"overrides": tuple(overrides)} if takes_config else {}))


def _split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """Returns (`a.b=c` for every `--config.a.b=c` or `--config.a.b c`, the other arguments)."""
    overrides, rest, i = [], [], 0
    while i < len(argv):
        item = argv[i]
        if not item.startswith(OVERRIDE):
            rest.append(item)
        elif "=" in item or i + 1 == len(argv) or argv[i + 1].startswith("--"):
            overrides.append(item.removeprefix(OVERRIDE))
        else:
            i += 1
            overrides.append(f"{item.removeprefix(OVERRIDE)}={argv[i]}")
        i += 1
    return overrides, rest


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Problems that the user can solve give one message and exit status 2, without a traceback.

    Ctrl-C ends with status 130, for a training run after saving its state.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    resumable = False
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        resumable = command.resumable
        command.run()
    except KeyboardInterrupt:
        _interrupted(resumable)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 — so that Python's flush at exit does not fail too
        sys.exit(BROKEN_PIPE)
    except UserError as error:
        _leave_others(error, 2)
        if isinstance(error, CheckpointError):
            print(f"binlatent: {error}", file=sys.stderr)
            _exit_immediately(2)
        _fail(str(error))
    except OSError as error:  # a full disk, missing permissions
        _leave_others(error, 2)
        _fail(_os_message(error, resumable))
    except Exception as error:
        _unexpected(error, resumable)


def _os_message(error: OSError, resumable: bool) -> str:
    """The operating system's message and the path, without the error number."""
    path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    message = f"{path}{error.strerror or error}"
    if resumable:
        message += "; once this is solved, the same command resumes from the last checkpoint"
    return message


def _unexpected(error: Exception, resumable: bool) -> None:
    """Returns or exits for a run that was asked to stop, gives a message if memory is exhausted, otherwise re-raises."""
    from binlatent.console import say
    from binlatent.train.preemption import Preempted

    if isinstance(error, Preempted):
        say(str(error))
        if error.interrupted:
            sys.exit(INTERRUPTED)
        return
    _leave_others(error, 1)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        advice = "a smaller batch size" + (" or more micro_batches" if resumable else "") + " needs less"
        _fail(f"out of memory; {advice}. {(str(error).strip().splitlines() or [''])[0][:200]}".rstrip())
    raise error


def _interrupted(resumable: bool) -> NoReturn:
    """Ends the process; a run immediately."""
    if not resumable:
        print("\nbinlatent: stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print("\nbinlatent: stopped immediately; the same command resumes from the last checkpoint", file=sys.stderr)
    _exit_immediately(INTERRUPTED)


def _exit_immediately(status: int) -> NoReturn:
    """Ends without a normal exit, which would wait for threads that are still writing, or that cannot."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _fail(message: str) -> NoReturn:
    print(f"binlatent: {message}", file=sys.stderr)
    sys.exit(2)


def _leave_others(error: Exception, status: int) -> None:
    """With several processes, ends this one so that the others notice."""
    if "jax" not in sys.modules:
        return
    from binlatent.cli import distributed

    if distributed.started():
        distributed.leave(error, status)


if __name__ == "__main__":
    main()
