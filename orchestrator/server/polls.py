"""What programs poll is remembered for a moment, so a hundred polls a second cost a live run next to nothing.

It remembers for a quarter of a second what a user's poll of a batch, a run or `/metrics` was answered, for a second if
many polls get the same answer, and forgets it whenever this server is asked to change something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.server.context import identity_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

POLLED = frozenset({"/v1/batches/{id}", "/api/runs/{run}", "/metrics"})
KEPT = 0.25  # seconds
KEPT_IF_MANY = 1.0  # the same if the answer before was given to `_MANY` polls: reading costs as much as ten polls
_MANY = 10
_MOST = 1000  # answers

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Answer:
    body: bytes
    content_type: str
    until: float  # on the monotonic clock
    given: int = 0  # polls that got it without reading anything


@dataclass(slots=True)
class Polls:
    """The latest answers to polls. `changes`: requests of this server that may have changed something."""

    answers: dict[_Key, _Answer] = field(default_factory=dict)
    changes: int = 0

    def changed(self) -> None:
        """Forget all answers."""
        self.answers.clear()
        self.changes += 1


POLLS = web.AppKey("polls", Polls)


@web.middleware
async def remember_polls(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a poll as the same one of the same user was answered a moment ago.

    Whatever this server was asked to change is seen by the next poll; what another process commits, after `KEPT`, or
    `KEPT_IF_MANY`.
    """
    polls = request.config_dict[POLLS]
    if request.method != "GET":
        try:
            return await handler(request)
        finally:
            polls.changed()
    resource = request.match_info.route.resource
    if resource is None or resource.canonical not in POLLED:
        return await handler(request)
    identity = identity_of(request)
    key = (request.path_qs, identity.name, identity.role, request.headers.get("Accept", ""))
    known = polls.answers.get(key)
    if known is None or monotonic() >= known.until:
        changes, kept = polls.changes, KEPT_IF_MANY if known is not None and known.given >= _MANY else KEPT
        response = await handler(request)
        if not (isinstance(response, web.Response) and isinstance(response.body, bytes) and response.status == 200):
            return response
        known = _Answer(response.body, response.headers["Content-Type"], monotonic() + kept)
        if changes == polls.changes:
            polls.answers.pop(key, None)
            polls.answers[key] = known  # the latest is the last
            if len(polls.answers) > _MOST:
                del polls.answers[next(iter(polls.answers))]
        return response
    known.given += 1
    return web.Response(body=known.body, headers={"Content-Type": known.content_type})
