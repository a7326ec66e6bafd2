"""The page: HTML that the server renders, kept up to date by a short script.

`layout` has the frame and the parts of every page, `assets` the files that it loads, `curves` what the script draws.
Every other module is one page, or a few that belong together.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.server.failures import Refused
from orchestrator.server.page.assets import ASSETS
from orchestrator.server.page.batches import batch_page, batches_page, cancel_batch
from orchestrator.server.page.endpoints import endpoints_page
from orchestrator.server.page.failures import failures_page, retry
from orchestrator.server.page.home import home
from orchestrator.server.page.item import show_item
from orchestrator.server.page.items import items_page
from orchestrator.server.page.layout import failure
from orchestrator.server.page.queue import act_on_run, act_on_schedule, queue_page
from orchestrator.server.page.report import report_page
from orchestrator.server.page.run import act, run_page
from orchestrator.server.page.runs import runs_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler


def routes() -> list[web.RouteDef]:
    """Return the routes of the pages, their actions and their files."""
    return [
        web.get("/static/{version}/{name}", ASSETS.serve),
        web.get("/", _as_page(home)),
        web.get("/runs", _as_page(runs_page)),
        web.get("/runs/{run}", _as_page(run_page)),
        web.get("/runs/{run}/failures", _as_page(failures_page)),
        web.post("/runs/{run}/retry", _as_page(retry)),
        web.get("/runs/{run}/items", _as_page(items_page)),
        web.get("/runs/{run}/items/{item}", _as_page(show_item)),
        web.get("/queue", _as_page(queue_page)),
        web.post("/queue/{run}/{action:hold|go|cancel|prioritize}", _as_page(act_on_run)),
        web.post("/schedules/{job}/{action:pause|resume|fire}", _as_page(act_on_schedule)),
        web.get("/endpoints", _as_page(endpoints_page)),
        web.get("/batches", _as_page(batches_page)),
        web.get("/batches/{batch}", _as_page(batch_page)),
        web.post("/batches/{batch}/cancel", _as_page(cancel_batch)),
        web.get("/report", _as_page(report_page)),
        web.post("/runs/{run}/{action:hold|go|cancel|tune}", _as_page(act)),
    ]


def _as_page(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Handler:
    """Return the handler with its failures as pages instead of JSON."""

    @wraps(handler)
    async def page(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return failure(refused.message, refused.status)
        except UsageError as error:
            return failure(str(error), 404 if request.method == "GET" else 400)
        except OrchestratorError as error:
            return failure(str(error), 409)

    return page
