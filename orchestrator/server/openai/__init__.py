"""OpenAI's API for batches, under /v1: files, uploads in parts, batches, models.

`objects` has the objects as JSON, `bodies`, `queries` and `multipart` read requests. The handlers are in a module for
each kind of object.

`objects.py` makes its objects as JSON from the values of `domain/batch.py`; `bodies.py`, `queries.py` and
`multipart.py` read requests and refuse them in OpenAI's words; a form's file goes piece by piece to `receiving`
(`engine/batches/files.py`), whatever the order of its parts, and is gone unless it is kept. There is a module of
handlers for each kind of object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.server.failures import Refused
from orchestrator.server.openai.batches import cancel_batch, create_batch, list_batches, retrieve_batch
from orchestrator.server.openai.files import create_file, delete_file, file_content, list_files, retrieve_file
from orchestrator.server.openai.models import list_models, retrieve_model
from orchestrator.server.openai.uploads import add_part, cancel_upload, complete_upload, create_upload

if TYPE_CHECKING:
    from collections.abc import Iterable

_OFFERS = "/v1/files, /v1/uploads, /v1/batches and /v1/models"


def routes() -> Iterable[web.RouteDef]:
    """Return the routes under /v1. Any other is answered by a line that says what there is, or by 405."""
    return [
        web.post("/v1/files", create_file),
        web.get("/v1/files", list_files),
        web.get("/v1/files/{id}", retrieve_file),
        web.delete("/v1/files/{id}", delete_file),
        web.get("/v1/files/{id}/content", file_content),
        web.post("/v1/uploads", create_upload),
        web.post("/v1/uploads/{id}/parts", add_part),
        web.post("/v1/uploads/{id}/complete", complete_upload),
        web.post("/v1/uploads/{id}/cancel", cancel_upload),
        web.post("/v1/batches", create_batch),
        web.get("/v1/batches", list_batches),
        web.get("/v1/batches/{id}", retrieve_batch),
        web.post("/v1/batches/{id}/cancel", cancel_batch),
        web.get("/v1/models", list_models),
        web.get("/v1/models/{model:.+}", retrieve_model),
        web.route("*", "/v1/{path:.*}", _nothing_here),
    ]


async def _nothing_here(request: web.Request) -> web.Response:
    if allowed := await _allowed(request):
        why = f"Not allowed to {request.method} on {request.path}: {' or '.join(allowed)}."
        raise Refused(405, why, code="method_not_supported", headers={"Allow": ", ".join(allowed)})
    raise Refused(
        404,
        f"Unknown request URL: {request.method} {request.path}. This server runs batches and answers no request live: "
        f"it offers {_OFFERS}.",
        code="unknown_url",
    )


async def _allowed(request: web.Request) -> list[str]:
    """Return the methods that this path's other routes have."""
    found: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        found |= methods
    return sorted(found - {"*"})
