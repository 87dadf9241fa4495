"""Runs of several processes: how they start, and how the failure of one ends all.

JAX's runtime connects and monitors the processes; nothing here passes messages.
"""

import os
import sys
import traceback

from binlatent.errors import UserError

HEARTBEAT_SECONDS = 60  # after this silence a process counts as dead, and the others end


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the other processes. Must precede any other use of JAX; from then on, `console` prints on process 0 only.

    Args:
      coordinator: HOST:PORT at which process 0 listens; None to detect the cluster (TPU pod, SLURM, Open MPI).
      num_processes, process_id: the number of processes, and the index of this one; None to detect them.
      timeout: seconds to wait for the others.

    Raises:
      UserError: the cluster is not detected, or the other processes do not join.
    """
    import jax

    options = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in options.items() if value is None]
    if missing and len(missing) < len(options):
        raise UserError(f"{' and '.join(missing)} missing: --coordinator, --num_processes and --process_id go together")
    if not missing:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator {coordinator}: HOST:PORT is expected, such as 10.0.0.1:1234")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id {process_id}: a number from 0 to {num_processes - 1} is expected")
        print(f"process {process_id} of {num_processes}: joining {coordinator}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if missing:
            raise UserError(
                f"--distributed detects no TPU pod, SLURM or Open MPI job ({reason}). Start it through one of them, or "
                "give --coordinator HOST:PORT --num_processes N --process_id I."
            ) from error
        raise UserError(
            f"process {process_id} of {num_processes} could not join {coordinator} within {timeout} s ({reason}). Is "
            "process 0 running, is the port open and free, and do all processes give the same numbers?"
        ) from error


def started() -> bool:
    """Whether this process is one of several."""
    import jax

    return jax.distributed.is_initialized()


def leave(error: BaseException, status: int) -> None:
    """Ends this process immediately, so that the others notice; a normal exit would wait for them, and they for it."""
    import jax

    if not isinstance(error, UserError):
        traceback.print_exception(error)
    print(
        f"binlatent: process {jax.process_index()} of {jax.process_count()} failed: {error}\n"
        "The other processes end too. Start all of them again to resume from the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(status)
