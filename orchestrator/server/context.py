"""What a handler works with: the application, who asks, what a form says, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web

from orchestrator.domain.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from orchestrator.app import App
    from orchestrator.domain.http_address import HttpAddress
    from orchestrator.engine.stop import Stop
    from orchestrator.server.tokens import Access


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that the server's handlers share.

    `stop`: a handler with an open stream ends it once this is requested. `tasks`: for what serves all requests; it is
    cancelled when the server ends. `executes`: whether a daemon in this process executes runs.
    """

    app: App
    address: HttpAddress
    access: Access
    stop: Stop
    tasks: TaskGroup
    executes: bool


CONTEXT = web.AppKey("context", Context)
IDENTITY = web.RequestKey("identity", Identity)
REQUEST_ID = web.RequestKey("request_id", str)


def context_of(request: web.Request) -> Context:
    """Return what the server's handlers share."""
    return request.config_dict[CONTEXT]


def identity_of(request: web.Request) -> Identity:
    """Return who makes the request. There is one for every handler but those of signing in and of `access.HEALTH`."""
    return request[IDENTITY]


async def form_of(request: web.Request) -> Mapping[str, str]:
    """Return the fields of a form that a page of this server sent; none if the body is anything else.

    Bytes that are not UTF-8 become replacement characters, whatever the request says about its encoding.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    return dict(parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True))
