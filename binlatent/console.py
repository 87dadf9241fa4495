"""What a person at the terminal reads: progress and results on standard output, from one process alone.

Diagnostics for developers go through `logging`, not through here.
"""

import sys


def say(text: str = "") -> None:
    """Prints a line on standard output, above any progress bar; of several processes only the first prints."""
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Prints `warning: text` on standard error, above any progress bar; of several processes only the first prints."""
    _print(f"warning: {text}", sys.stderr)


def speaks() -> bool:
    """Whether this process is the one that prints. Processes are counted only once JAX's distributed runtime started."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def _print(text: str, file) -> None:
    if not speaks():
        return
    if "tqdm" in sys.modules:
        import tqdm

        tqdm.tqdm.write(text, file=file)
    else:
        print(text, file=file)
    file.flush()
