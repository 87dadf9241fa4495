"""The page's server: one page, a queue of requests, and their results.

    GET  /               the page
    GET  /model          what it has to know of the model
    POST /picture        {picture} → {picture}: an upload at the model's size
    POST /jobs           a `Request` → {job}
    GET  /jobs/NAME      its state, and its result once it is done
    DELETE /jobs/NAME    takes it out of the queue

Bodies are JSON and declared so, which keeps other sites' forms out. A wrong request gets status 400, 413 or 503 and
{error}.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as Incoming
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from binlatent.demo.jobs import Busy, Jobs
from binlatent.demo.requests import LARGEST_UPLOAD, LIMITS, Request
from binlatent.demo.work import Worker
from binlatent.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost")


class TooLarge(UserError):
    """More bytes than are taken."""


async def _body(incoming: Incoming) -> dict[str, Any]:
    if incoming.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UserError("the body must be JSON, with the content type application/json")
    content = bytearray()
    async for part in incoming.stream():
        content += part
        if len(content) > LARGEST_UPLOAD:
            raise TooLarge(f"more than {LARGEST_UPLOAD // 2**20} MB were sent: make the picture smaller first")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError("a JSON object is expected")
    return values


def _answering(handle: Callable[[Incoming], Awaitable[dict[str, Any]]]) -> Callable[[Incoming], Awaitable[Response]]:
    async def answer(incoming: Incoming) -> Response:
        try:
            return JSONResponse(await handle(incoming))
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503)
        except TooLarge as error:
            return JSONResponse({"error": str(error)}, 413, {"connection": "close"})
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


def application(worker: Worker, jobs: Jobs, host: str) -> Starlette:
    """The server's application; on loopback it answers to loopback's names only."""
    page = Path(__file__).with_name("page.html").read_text()

    async def show(_: Incoming) -> Response:
        return HTMLResponse(page)

    async def model(_: Incoming) -> dict[str, Any]:
        return worker.facts() | {"limits": LIMITS}

    async def picture(incoming: Incoming) -> dict[str, Any]:
        values = await _body(incoming)
        text = values.get("picture")
        if not isinstance(text, str):
            raise UserError("a picture is expected")
        return {"picture": await run_in_threadpool(worker.picture, text)}

    async def add(incoming: Incoming) -> dict[str, Any]:
        request = Request.read(await _body(incoming))
        return {"job": jobs.add(lambda progress: worker.make(request, progress))}

    async def state(incoming: Incoming) -> dict[str, Any]:
        found = jobs.state(incoming.path_params["name"])
        if found is None:
            raise UserError("there is no such request, or its result is no longer kept: ask again")
        return found

    async def cancel(incoming: Incoming) -> dict[str, Any]:
        jobs.cancel(incoming.path_params["name"])
        return {}

    routes = [
        Route("/", show),
        Route("/model", _answering(model)),
        Route("/picture", _answering(picture), methods=["POST"]),
        Route("/jobs", _answering(add), methods=["POST"]),
        Route("/jobs/{name}", _answering(state)),
        Route("/jobs/{name}", _answering(cancel), methods=["DELETE"]),
    ]
    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])
