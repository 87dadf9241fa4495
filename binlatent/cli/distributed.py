"""One of several processes of a run: how it starts, and how the failure of one ends all.

JAX's own runtime finds the processes and watches them; nothing here passes messages.
"""

import os
import sys
import traceback

from binlatent.errors import UserError

HEARTBEAT_SECONDS = 60  # a process that is silent for longer counts as dead, and the others end


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the other processes; must come before any other use of JAX. `console` prints on process 0 alone from then on.

    Args:
      coordinator: HOST:PORT at which process 0 listens; None where the cluster is detected (TPU pod, SLURM, Open MPI).
      num_processes, process_id: how many there are and which one this is; None where they are detected.
      timeout: seconds to wait for the others.

    Raises:
      UserError: the cluster is not detected, or the others do not come.
    """
    import jax

    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise UserError(f"{' and '.join(missing)} missing: --coordinator, --num_processes and --process_id go together")
    if not missing:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator {coordinator}: HOST:PORT is expected, as 10.0.0.1:1234")
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
                f"--distributed finds no TPU pod, SLURM or Open MPI job here ({reason}). Start it through one of them, or "
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
    """Ends this process at once, so that the others notice: an orderly end would wait for them, and they for this one."""
    import jax

    if not isinstance(error, UserError):
        traceback.print_exception(error)
    print(
        f"binlatent: process {jax.process_index()} of {jax.process_count()} ends: {error}\n"
        "The other processes end too. Start all of them again to resume from the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(status)
