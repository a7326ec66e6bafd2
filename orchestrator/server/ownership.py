"""Whose run it is: a run of a batch belongs to whoever made the batch, every other run to the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.identity import Role
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.run import Run


async def run_to_read(request: web.Request, name: str) -> Run:
    """Return the run with this number, or the latest one of this job. Those of other people's batches are refused."""
    run, owner = await _found(request, name)
    if owner is not None and not _is_theirs(request, owner):
        raise Refused(403, f"run {run.id} is of somebody else's batch")
    return run


async def run_to_change(request: web.Request, name: str) -> Run:
    """Return the run if whoever asks may change it: an admin, or the owner of its batch."""
    run, owner = await _found(request, name)
    if not _is_theirs(request, owner):
        raise Refused(403, f"only an admin may do this, and run {run.id} is of no batch of {identity_of(request).name}")
    return run


async def _found(request: web.Request, name: str) -> tuple[Run, str | None]:
    app = context_of(request).app
    try:
        run = await app.find(name)
    except UsageError as error:
        raise Refused(404, str(error)) from error
    return run, await app.batches.owner_of_run(run.id)


def _is_theirs(request: web.Request, owner: str | None) -> bool:
    identity = identity_of(request)
    return identity.role is Role.ADMIN or identity.name == owner
