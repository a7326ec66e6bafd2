"""Whose run it is: a run of a batch belongs to whoever made the batch, every other run to the admin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from orchestrator.domain.errors import UsageError
from orchestrator.domain.identity import Role
from orchestrator.domain.queue import Queued
from orchestrator.domain.report_data import Ran
from orchestrator.domain.run import Run
from orchestrator.server.context import IDENTITY, context_of, identity_of
from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler

    from orchestrator.domain.report import Report

T = TypeVar("T", bound=Run | Queued | Ran)
_RUN = web.RequestKey("run", Run)
_MAY_CHANGE = web.RequestKey("may_change", bool)
_CHECKED = ("/v1/", "/batches/", "/sign-out")  # where handlers look only for what belongs to the owner


@web.middleware
async def check_owner(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let everybody but admins change only what is theirs, and see only runs of their own batches, or of none.

    The handler of a path with a `{run}` gets it from `run_of`, so no handler can forget this.
    """
    identity = request.get(IDENTITY)  # nobody while signing in
    if identity is not None:
        reads, name = request.method in {"GET", "HEAD"}, request.match_info.get("run")
        if name is not None:
            run = request[_RUN] = await (run_to_read if reads else _run_to_change)(request, name)
            request[_MAY_CHANGE] = await may_change(request, run.id)
        elif not reads and identity.role is not Role.ADMIN and not request.path.startswith(_CHECKED):
            raise Refused(403, "only an admin may do this")
    return await handler(request)


def run_of(request: web.Request) -> Run:
    """Return the run that the path names. Whoever asks may do with it what the request asks for."""
    return request[_RUN]


def may_act(request: web.Request) -> bool:
    """Whether whoever asks may do more than read: on the run that the path names, if it names one."""
    known: bool | None = request.get(_MAY_CHANGE)
    return identity_of(request).role.includes(Role.RUN) if known is None else known


async def run_to_read(request: web.Request, name: str) -> Run:
    """Return the run with this number, or the latest one of this job. Those of other people's batches are refused."""
    run, owner = await _found(request, name)
    if owner is not None and not _is_theirs(request, owner):
        raise Refused(403, f"run {run.id} is of somebody else's batch")
    return run


async def may_read(request: web.Request, run: int) -> bool:
    """Whether the client may see more of a run than its figures."""
    if identity_of(request).role is Role.ADMIN:
        return True
    owner = await context_of(request).app.store.batches.owner_of_run(run)
    return owner is None or _is_theirs(request, owner)


async def may_change(request: web.Request, run: int) -> bool:
    """Whether whoever asks may act on a run: an admin, or the owner of its batch if that may act at all."""
    role = identity_of(request).role
    if role in {Role.ADMIN, Role.READ}:
        return role is Role.ADMIN
    return _is_theirs(request, await context_of(request).app.store.batches.owner_of_run(run))


async def discreet(request: web.Request, ones: Sequence[T]) -> list[T]:
    """Return the runs, without the reason and the error of those that the client may not read.

    What a server says may quote a request, and names what only the batch's owner has to know.
    """
    return [one if await may_read(request, one.id) else without_words(one) for one in ones]


def without_words(one: T) -> T:
    """Return a run without the reason why it waits and the error with which it ended."""
    if isinstance(one, Queued):
        return replace(one, why=None)
    return replace(one, why=None, error=None)


async def readable(request: web.Request, report: Report) -> Report:
    """Return the report with only the runs whose details the client may see. Its totals cover all runs."""
    runs = [run for run in report.runs if await may_read(request, run.ran.id)]
    waiting = [one if await may_read(request, one.run) else replace(one, why=None) for one in report.data.waiting]
    return replace(report, runs=runs, data=replace(report.data, waiting=waiting))


async def _run_to_change(request: web.Request, name: str) -> Run:
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
    return run, await app.store.batches.owner_of_run(run.id)


def _is_theirs(request: web.Request, owner: str | None) -> bool:
    identity = identity_of(request)
    return identity.role is Role.ADMIN or identity.name == owner
