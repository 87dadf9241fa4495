"""The page's server over the tiny model, in a thread, and a plain client."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import binlatent
from binlatent.demo.jobs import Jobs
from binlatent.demo.run import _listen
from binlatent.demo.server import application
from binlatent.demo.work import Worker


@contextlib.contextmanager
def serving(workdir):
    """The address of a server of the page."""
    import uvicorn

    jobs, listener = Jobs(), _listen("127.0.0.1", 0)
    worker = Worker(model=binlatent.load(workdir), workdir=str(workdir))
    server = uvicorn.Server(uvicorn.Config(application(worker, jobs, "127.0.0.1"), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    jobs.stop()
    thread.join(10)


def ask(address, method, path, body=None, content_type="application/json", **headers):
    """(status, JSON) of a request; the body is bytes or JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": content_type, **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def result(address, **request):
    """What a request comes to: its result or its error."""
    status, answer = ask(address, "POST", "/jobs", request)
    assert status == 200, answer
    while True:
        _, found = ask(address, "GET", f"/jobs/{answer['job']}")
        if found["state"] not in ("waiting", "running"):
            return found.get("result") or found["error"]
        time.sleep(0.02)
