"""Starts the page's server."""

import socket

from binlatent.console import say, warn
from binlatent.demo.jobs import Jobs
from binlatent.demo.server import LOOPBACK, application
from binlatent.demo.work import Worker
from binlatent.errors import UserError
from binlatent.pipeline import Pipeline


def serve(workdir: str, *, host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Raises:
      UserError: the model lacks a half, or nothing can listen at that host and port.
    """
    import uvicorn

    model = Pipeline.load(workdir)
    if model.autoencoder is None or model.prior is None:
        raise UserError(f"{workdir} holds half of a model: the page needs an autoencoder and a prior")
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{listener.getsockname()[1]} (Ctrl-C ends it)")
    if host not in LOOPBACK:
        warn(f"everybody who reaches {host} can use this page: there is no password, and no encryption")
    jobs = Jobs()
    config = uvicorn.Config(
        application(Worker(model=model, workdir=workdir), jobs, host), log_level="warning", timeout_graceful_shutdown=2
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        jobs.stop()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # from here on connections wait for the server rather than being refused
    except OSError as error:
        raise UserError(
            f"nothing can listen at {host}, port {port}: {error.strerror or error}; choose another --host or --port"
        ) from error
    return listener
