"""One run at a time in a folder."""

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
    """Holds a folder for this process, of several for the first one.

    The operating system lets go of the lock when the process ends, however it ends, so that none is left behind; the file
    says which host and process has it. Object stores have no locks: nothing is held there.

    Raises:
      UserError: another process has the folder.
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
                f"{folder} is in use by {_holder(path)}. Wait until it ends, or end it, or use another work directory."
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
        held = json.loads(path.read_text())
        return f"process {held['process']} on host {held['host']}"
    except (OSError, ValueError, KeyError):  # it has begun just now
        return "another process"
