"""The command line in one process or in several that train together."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(args, *, devices: int = 1, processes: int = 1, log: Path | None = None, **env: str) -> list[subprocess.Popen]:
    """Starts a command in one or several processes of `devices` virtual devices each.

    Args:
      log: a file that their output is added to; None for a pipe each.
      env: more variables of their environment.
    """
    env = os.environ | env | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    several = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            several = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--num_processes", str(processes)]
    out = subprocess.PIPE if log is None else log.open("a")
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "binlatent",
                *map(str, args),
                *several,
                *(["--process_id", str(i)] if several else []),
            ],
            env=env,
            cwd=ROOT,
            text=True,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        for i in range(processes)
    ]


def finish(started: list[subprocess.Popen], limit: float) -> list[tuple[int, str | None]]:
    """(exit status, output) of every process; none outlives the limit in seconds.

    Raises:
      subprocess.TimeoutExpired: one had to be killed.
    """
    results, end = [], time.monotonic() + limit
    try:
        for process in started:
            out, _ = process.communicate(timeout=max(0.1, end - time.monotonic()))
            results.append((process.returncode, out))
    finally:
        for process in started:
            process.kill()
            process.wait()
    return results
