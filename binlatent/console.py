"""Messages for the user at the terminal: results, warnings and progress bars, from the first process only.

Diagnostics for developers go through `logging` instead.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from binlatent.errors import UserError

TICK_SECONDS = 1.0  # progress bars are refreshed at least this often


def say(text: str = "") -> None:
    """Prints a line on standard output, above any progress bar, in the first process only."""
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Prints `warning: text` on standard error, above any progress bar, in the first process only."""
    _print(f"warning: {text}", sys.stderr)


def script(main: Callable[[], None]) -> None:
    """Runs a program of `binlatent.machines`; a `UserError` is a message of one line, as with the command line."""
    try:
        main()
    except UserError as error:
        sys.exit(f"binlatent: {error}")


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers, as a `type` of argparse, which names one that is wrong."""
    return [int(part) for part in text.split(",")]


def decimals(text: str) -> list[float]:
    """Comma-separated numbers, as `numbers`."""
    return [float(part) for part in text.split(",")]


def speaks() -> bool:
    """Whether this process prints: the first one does, or any before JAX's distributed runtime is initialised."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


@contextlib.contextmanager
def progress(total: int, name: str, unit: str = "image") -> Iterator[Any]:
    """A tqdm progress bar in the first process, whose clock keeps running during long calls."""
    import tqdm

    ended = threading.Event()
    with tqdm.tqdm(total=total, desc=name, unit=unit, dynamic_ncols=True, disable=not speaks()) as bar:

        def tick():
            while not ended.wait(TICK_SECONDS):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        if sys.stderr.isatty():
            ticking.start()
        try:
            yield bar
        finally:
            ended.set()
            if ticking.ident is not None:
                ticking.join()


def _print(text: str, file) -> None:
    if not speaks():
        return
    encoding = getattr(file, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # for file names and terminals that are not UTF-8
    if "tqdm" in sys.modules:
        import tqdm

        tqdm.tqdm.write(text, file=file)
    else:
        print(text, file=file)
    file.flush()
