"""A lock, so that only one run at a time uses a folder."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator

import jax
from etils import epath

from binlatent.errors import UserError

NAME = "lock"


@contextlib.contextmanager
def lock(folder: epath.PathLike) -> Iterator[None]:
    """Locks a folder for this process (with several processes, for the first one).

    The operating system releases the lock when the process ends in any way; the lock file names the host and the process.
    Object stores have no locks, so folders there are not locked.

    Raises:
      UserError: another process has locked the folder.
    """
    if "://" in os.fspath(folder) or jax.process_index() != 0:
        yield
        return
    import fcntl

    path = epath.Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is in use by {_holder(path)}. Wait for it, stop it, or use another work directory."
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(path: epath.Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['process']} on host {holder['host']}"
    except (OSError, ValueError, KeyError):  # it has not written the file yet
        return "another process"
