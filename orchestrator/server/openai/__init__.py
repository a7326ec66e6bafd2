"""OpenAI's API for batches, under /v1: files, uploads in parts, batches, models.

`objects` has the objects as JSON, `bodies`, `queries` and `multipart` read requests. The handlers are in a module for
each kind of object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.server.failures import Refused
from orchestrator.server.openai.models import list_models, retrieve_model

if TYPE_CHECKING:
    from collections.abc import Iterable

_OFFERS = "/v1/files, /v1/uploads, /v1/batches and /v1/models"


def routes() -> Iterable[web.RouteDef]:
    """Return the routes under /v1. Any other is answered by a line that says what there is."""
    return [
        web.get("/v1/models", list_models),
        web.get("/v1/models/{model:.+}", retrieve_model),
        web.route("*", "/v1/{path:.*}", _nothing_here),
    ]


async def _nothing_here(request: web.Request) -> web.Response:
    raise Refused(
        404,
        f"Unknown request URL: {request.method} {request.path}. This server runs batches and answers no request live: "
        f"it offers {_OFFERS}.",
        code="unknown_url",
    )
