"""The toolkit's HTTP routes: GET / and /health, POST / and /predict. Its 400 is 400 or 500 here, by fault."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from orchestrator.worker.bearer import bearer
from orchestrator.worker.handler.answer import Unwritable, as_image, is_image, written
from orchestrator.worker.handler.data import IMAGES, from_http, unpacked
from orchestrator.worker.handler.failures import judged
from orchestrator.worker.model import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from orchestrator.worker.handler.calls import Calls
    from orchestrator.worker.handler.data import Data

_JSON = "application/json"
_ANYTHING = frozenset({"", "*/*", "application/*", _JSON})
_FORMATS = {"jpg": "JPEG", "x-image": "PNG"}  # Pillow's formats whose names differ from the content type's


def application(calls: Callable[[], Calls | None], thread: Executor, token: str) -> web.Application:
    """Return the routes. While `calls` returns None they answer 503; the toolkit accepts no connection at that time.

    A POST needs the bearer token: any user of this machine, and any page in a browser on it, can reach the port.
    """
    key = bearer(token)

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="Ok") if calls() else web.Response(text="the handler is still loading", status=503)

    async def ask(request: web.Request) -> web.Response:
        if not key.opens(request):
            return _error(key.refusal, 401)
        found = calls()
        return await predict(request, found, thread) if found else _error("the handler is still loading", 503)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(request.rel_url.with_path(f"/{request.match_info['route']}", keep_query=True))

    made = web.Application(client_max_size=0)
    for path in ("/", "/health"):
        made.router.add_get(path, health)
    for path in ("/", "/predict"):
        made.router.add_post(path, ask)
    made.router.add_route("*", "/{route:health|predict}/", redirect)
    return made


async def predict(request: web.Request, calls: Calls, thread: Executor) -> web.Response:
    """Make one call with the body unchanged, in the handler's thread: one at a time, as the toolkit does."""
    body, kind = await request.read(), request.headers.get("Content-Type", "")
    asked = partial(_data, calls, body, request.headers.get("Content-Encoding", ""), kind, dict(request.query))
    accept = request.headers.get("Accept", "")
    return await asyncio.get_running_loop().run_in_executor(thread, _answer, calls, asked, accept)


def _data(calls: Calls, body: bytes, encoding: str, kind: str, query: Mapping[str, str]) -> Data:
    return from_http(unpacked(body, encoding), kind, query, calls.task)


def _answer(calls: Calls, asked: Callable[[], Data], accept: str) -> web.Response:
    try:
        wanted = accepted(accept)
        content = _as(wanted, calls.handler(asked()))
    except BaseException as error:
        blame, words = judged(error, calls.handler.folder)
        return _error(words, 400 if blame == "rejected" else 500)
    return web.Response(body=content, content_type=wanted)


def accepted(accept: str) -> str:
    """Return the first accepted type that can be produced. Raises `Rejected` if there is none."""
    for wish in accept.split(","):
        kind = wish.partition(";")[0].strip().lower()
        if kind in _ANYTHING:
            return _JSON
        if kind in IMAGES:
            return kind
    raise Rejected(f"Accept: {accept} cannot be met; there is {_JSON}, and images where the handler answers one")


def _as(wanted: str, answer: object) -> bytes:
    if wanted == _JSON:
        return written(answer)
    if not is_image(answer):
        raise Unwritable(f"an image was asked for (Accept: {wanted}), and the handler answered {type(answer).__name__}")
    name = wanted.removeprefix("image/")
    return as_image(answer, _FORMATS.get(name, name.upper()))


def _error(words: str, status: int) -> web.Response:
    return web.Response(body=orjson.dumps({"error": words}), status=status, content_type=_JSON)
