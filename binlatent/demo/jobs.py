"""A queue of requests and one thread that works on them in order."""

import collections
import dataclasses
import itertools
import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from binlatent.errors import UserError

MOST_WAITING = 16
MOST_KEPT = 64  # finished jobs whose results can still be fetched

log = logging.getLogger(__name__)


class Busy(UserError):
    """The queue is full."""


@dataclasses.dataclass(kw_only=True)
class Job:
    """One request. `state` is waiting, running, done, failed or cancelled."""

    name: str
    work: Callable[[Callable[[int, int], None]], Any]
    state: str = "waiting"
    done: int = 0
    total: int = 0
    result: Any = None
    error: str = ""


class Jobs:
    """Takes work and tells how far it is. One thread works, since one request fills the devices."""

    def __init__(self):
        self._jobs: collections.OrderedDict[str, Job] = collections.OrderedDict()
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="demo", daemon=True)
        self._thread.start()

    def add(self, work: Callable[[Callable[[int, int], None]], Any]) -> str:
        """Puts work into the queue and returns its name, which nobody else can guess.

        Args:
          work: called with a function that it tells (images done, images in all).

        Raises:
          Busy: there are `MOST_WAITING` already.
        """
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING} requests are waiting already: try again in a while")
            job = Job(name=secrets.token_urlsafe(12), work=work)
            self._jobs[job.name] = job
            self._waiting.append(job)
            finished = [name for name, old in self._jobs.items() if old.state not in ("waiting", "running")]
            for name in itertools.islice(finished, max(0, len(finished) - MOST_KEPT)):
                del self._jobs[name]
            self._changed.notify()
        return job.name

    def state(self, name: str) -> dict[str, Any] | None:
        """How far a job is, with its result or error where it has ended; None where there is no such job."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                return None
            state = {"state": job.state, "done": job.done, "total": job.total}
            if job.state == "waiting":
                state["ahead"] = self._waiting.index(job) + 1  # with the one that is being worked on
            return state | ({"error": job.error} if job.error else {}) | ({"result": job.result} if job.result else {})

    def cancel(self, name: str) -> None:
        """Takes a job out of the queue; one that is being worked on is finished."""
        with self._changed:
            job = self._jobs.get(name)
            if job is not None and job.state == "waiting":
                self._waiting.remove(job)
                job.state = "cancelled"

    def stop(self) -> None:
        """Ends the thread after the job that it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                job = self._waiting.popleft()
                job.state = "running"
            try:
                job.result = job.work(lambda done, total, job=job: vars(job).update(done=done, total=total))
                job.state = "done"
            except UserError as error:
                job.error, job.state = str(error), "failed"
            except Exception as error:  # the page must hear of it, and the queue go on
                log.exception("a request failed")
                job.error, job.state = f"it failed: {type(error).__name__}: {error}"[:300], "failed"
