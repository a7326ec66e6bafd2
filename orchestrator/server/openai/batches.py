"""`/v1/batches`: batches are created, polled, listed and cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.batch import NewBatch
from orchestrator.domain.errors import BatchOver, InvalidBatch
from orchestrator.domain.identity import Role
from orchestrator.engine.batches import creation
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.failures import NO_RETRY, Refused
from orchestrator.server.openai.bodies import CreateBatch, json_body
from orchestrator.server.openai.objects import answer, batch_object, page_object
from orchestrator.server.openai.queries import page_query

if TYPE_CHECKING:
    from aiohttp import web

_LIMIT, _MOST = 20, 100  # batches of a page: by default, and at most


async def create_batch(request: web.Request) -> web.Response:
    """Create a batch; its file is validated later. An equal one within a minute is the client's retry."""
    context, identity = context_of(request), identity_of(request)
    body = await json_body(request, CreateBatch)
    if not (context.executes or await context.app.store.queue.served()):
        why = "no daemon is running, and this server is none: `orchestrator serve --http 127.0.0.1:8377` is both"
        raise Refused(503, why, headers=NO_RETRY)
    new = NewBatch(
        owner=identity.name,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        output_expires_after=None if body.output_expires_after is None else body.output_expires_after.seconds,
    )
    try:
        batch = await creation.create_batch(new, context.app.store, reads_all=identity.role is Role.ADMIN)
    except InvalidBatch as error:
        raise Refused(400, str(error), code="invalid_value", param=error.param) from error
    return answer(batch_object(batch))


async def list_batches(request: web.Request) -> web.Response:
    """Return a page of batches, the newest first."""
    page = page_query(request.query, default=_LIMIT, most=_MOST)
    batches, owner = context_of(request).app.store.batches, identity_of(request).only
    if page.after is not None and await batches.find(page.after, owner) is None:
        raise _no_batch(page.after)
    found, more = await batches.listed(owner, after=page.after, limit=page.limit)
    return answer(page_object([batch_object(batch) for batch in found], more=more))


async def retrieve_batch(request: web.Request) -> web.Response:
    """Return a batch as it is now."""
    id_ = request.match_info["id"]
    found = await context_of(request).app.store.batches.find(id_, identity_of(request).only)
    if found is None:
        raise _no_batch(id_)
    return answer(batch_object(found))


async def cancel_batch(request: web.Request) -> web.Response:
    """Ask for the end of a batch; what is answered is kept."""
    id_ = request.match_info["id"]
    try:
        found = await creation.cancel_batch(id_, identity_of(request).only, context_of(request).app.store)
    except BatchOver as error:
        raise Refused(409, str(error), headers=NO_RETRY) from error
    if found is None:
        raise _no_batch(id_)
    return answer(batch_object(found))


def _no_batch(id_: str) -> Refused:
    return Refused(404, f"No batch found with id '{id_}'.", param="id")
