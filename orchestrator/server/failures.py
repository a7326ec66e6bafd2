"""How a request fails: as a page, or as JSON in the shape of its family of routes; never as a traceback."""

from __future__ import annotations

import logging
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from orchestrator.domain.errors import LedgerError, LedgerLocked, OrchestratorError, RunStopped, UsageError
from orchestrator.server.context import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.typedefs import Handler, Middleware

_DATA = ("/v1/", "/api/", "/events", "/metrics", "/static/")  # what programs ask for
_LOG = logging.getLogger("orchestrator.server")
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    503: "unavailable",
}
NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}
"""For a failure that a retry cannot help: OpenAI's clients retry 409, and every status from 500."""


class Refused(Exception):
    """The request cannot be answered as asked. The message is shown to the client: it holds no secret.

    `code` and `param` are OpenAI's; without a code, the status names one.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}


def answer_failures(page: Callable[[str, int], web.Response]) -> Middleware:
    """Turn every failure into a response: for a browser a `page` with the message and the status, otherwise JSON."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = f"req_{token_hex(16)}"
        try:
            return await handler(request)
        except ConnectionError:
            return web.Response()  # for nobody: the client has gone, which is no failure of ours
        except Exception as failure:
            if isinstance(failure, web.HTTPException) and failure.status < 400:
                raise
            refused = _as_refused(failure, request)
            response = page(refused.message, refused.status) if wants_page(request) else _as_json(request, refused)
            response.headers.update(refused.headers)
            if isinstance(failure, web.RequestPayloadError):
                response.force_close()  # where the next request begins is not known
            return response

    return middleware


def wants_page(request: web.Request) -> bool:
    """Whether a browser shows the answer as a page, so that it is to be HTML."""
    return "text/html" in request.headers.get("Accept", "") and not request.path.startswith(_DATA)


def _as_json(request: web.Request, refused: Refused) -> web.Response:
    """Return the response for a program: OpenAI's shape under /v1, ours elsewhere."""
    code = refused.code or _CODES.get(refused.status, "failed")
    error: dict[str, object] = {"message": refused.message, "code": code}
    if request.path.startswith("/v1/"):
        kind = "server_error" if refused.status >= 500 else "invalid_request_error"  # of an invalid key, too
        error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    return web.Response(body=orjson.dumps({"error": error}), status=refused.status, content_type="application/json")


def _as_refused(failure: Exception, request: web.Request) -> Refused:
    """Return what is said of a failure. An unexpected one is logged, without the query, which may hold a token."""
    match failure:
        case Refused():
            return failure
        case web.HTTPNotFound():
            return Refused(404, "there is nothing at this address")
        case web.HTTPException():
            allow = failure.headers.get("Allow")
            return Refused(failure.status, failure.reason, headers={} if allow is None else {"Allow": allow})
        case web.RequestPayloadError():
            return Refused(400, f"the body cannot be read: {' '.join(str(failure).split())}")
        case OrchestratorError():
            return _of_ours(failure)
        case _:
            path = request.rel_url.raw_path  # as it was sent, a path holds no line breaks
            _LOG.error("%s %s failed (%s)", request.method, path, request[REQUEST_ID], exc_info=failure)
            return Refused(500, f"unexpected failure; the server's log has more: {request[REQUEST_ID]}")


def _of_ours(error: OrchestratorError) -> Refused:
    match error:
        case LedgerLocked():
            return Refused(503, str(error), headers={"Retry-After": "1"})
        case LedgerError():
            return Refused(500, str(error), headers=NO_RETRY)
        case UsageError():
            return Refused(400, str(error))
        case RunStopped():
            return Refused(409, str(error))
        case _:
            return Refused(500, str(error))
