"""How a request fails: one shape of error for each family of routes, an id for every response, no traceback."""

from __future__ import annotations

import logging
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from orchestrator.domain.errors import LedgerError, LedgerLocked, OrchestratorError, RunStopped, UsageError
from orchestrator.server.context import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

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


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into a response. An unexpected one is a 500, and is logged without the query."""
    request[REQUEST_ID] = f"req_{token_hex(16)}"
    try:
        return await handler(request)
    except Refused as refused:
        return refusal(request, refused)
    except web.HTTPException as response:
        if response.status < 400:
            raise
        return refusal(request, Refused(response.status, response.reason, headers=_allow(response)))
    except web.RequestPayloadError as error:
        refused_body = refusal(request, Refused(400, f"the body cannot be read: {' '.join(str(error).split())}"))
        refused_body.force_close()  # where the next request begins is not known
        return refused_body
    except ConnectionError:  # the client has gone
        raise
    except OrchestratorError as error:
        return refusal(request, _as_refused(error))
    except Exception:  # noqa: BLE001 - a fault of ours costs one response
        _LOG.exception("%s %s failed (%s)", request.method, request.path, request[REQUEST_ID])
        return refusal(request, Refused(500, f"unexpected failure; the server's log has more: {request[REQUEST_ID]}"))


def wants_page(request: web.Request) -> bool:
    """Whether a browser shows the answer as a page, so that it is to be HTML."""
    return "text/html" in request.headers.get("Accept", "") and not request.path.startswith(_DATA)


def refusal(request: web.Request, refused: Refused) -> web.Response:
    """Return the response for a failure: OpenAI's shape under /v1, ours elsewhere."""
    code = refused.code or _CODES.get(refused.status, "failed")
    error: dict[str, object] = {"message": refused.message, "code": code}
    if request.path.startswith("/v1/"):
        kind = "server_error" if refused.status >= 500 else "invalid_request_error"  # of an invalid key, too
        error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
    return web.Response(
        body=orjson.dumps({"error": error}),
        status=refused.status,
        headers=refused.headers,
        content_type="application/json",
    )


def _allow(response: web.HTTPException) -> dict[str, str]:
    allow = response.headers.get("Allow")
    return {} if allow is None else {"Allow": allow}


def _as_refused(error: OrchestratorError) -> Refused:
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
