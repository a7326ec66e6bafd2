"""Puts middlewares and routes together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.server.access import HEALTH, check_identity, check_origin
from orchestrator.server.api import routes as api_routes
from orchestrator.server.context import CONTEXT
from orchestrator.server.events import mount_events
from orchestrator.server.failures import answer_failures
from orchestrator.server.headers import add_headers
from orchestrator.server.metrics import routes as metrics_routes
from orchestrator.server.openai import routes as openai_routes
from orchestrator.server.ownership import check_owner
from orchestrator.server.page import routes as page_routes
from orchestrator.server.page.layout import failure
from orchestrator.server.polls import POLLS, Polls, remember_polls
from orchestrator.server.remembered import REMEMBERED, Remembered
from orchestrator.server.sign_in import routes as sign_in_routes

if TYPE_CHECKING:
    from orchestrator.server.context import Context

_LARGEST_BODY = 1 << 20  # bytes that a handler may read at once; uploads are read as streams, with a limit of their own


def build(context: Context) -> web.Application:
    """Return the application with all routes. Whatever does not belong to signing in, or is `HEALTH`, needs a token."""
    application = web.Application(
        client_max_size=_LARGEST_BODY,
        middlewares=[answer_failures(failure), check_origin(context), check_identity, remember_polls, check_owner],
    )
    application[CONTEXT] = context
    application[POLLS] = Polls()
    application[REMEMBERED] = Remembered(context.tasks)
    application.on_response_prepare.append(add_headers)
    application.add_routes([web.get(HEALTH, _healthz)])
    application.add_routes(metrics_routes())
    application.add_routes(sign_in_routes())
    application.add_routes(openai_routes())
    application.add_routes(page_routes())
    application.add_routes(api_routes())
    mount_events(application, context)
    return application


async def _healthz(_request: web.Request) -> web.Response:
    """Say that the server answers; nothing else, because anybody may ask."""
    return web.Response(text="ok\n")
