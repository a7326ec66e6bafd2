"""The page: HTML that the server renders, kept up to date by a short script.

`layout` has the frame and the parts of every page, `assets` the files that it loads, `curves` what the script draws,
`actions` what most buttons do. Every other module is one page, or a few that belong together.
"""

from __future__ import annotations

from aiohttp import web

from orchestrator.server.page.actions import act_on_run, act_on_schedule
from orchestrator.server.page.assets import ASSETS
from orchestrator.server.page.batches import batch_page, batches_page, cancel_batch
from orchestrator.server.page.endpoints import endpoints_page
from orchestrator.server.page.failures import failures_page, retry
from orchestrator.server.page.home import home
from orchestrator.server.page.item import show_item
from orchestrator.server.page.items import items_page
from orchestrator.server.page.queue import queue_page
from orchestrator.server.page.report import report_page
from orchestrator.server.page.run import run_page
from orchestrator.server.page.runs import runs_page


def routes() -> list[web.RouteDef]:
    """Return the routes of the pages, their actions and their files."""
    return [
        web.get("/static/{version}/{name}", ASSETS.serve),
        web.get("/", home),
        web.get("/runs", runs_page),
        web.get("/runs/{run}", run_page),
        web.get("/runs/{run}/failures", failures_page),
        web.post("/runs/{run}/retry", retry),
        web.post("/runs/{run}/{action:hold|go|cancel|tune}", act_on_run),
        web.get("/runs/{run}/items", items_page),
        web.get("/runs/{run}/items/{item}", show_item),
        web.get("/queue", queue_page),
        web.post("/queue/{run}/{action:hold|go|cancel|prioritize}", act_on_run),
        web.post("/schedules/{job}/{action:pause|resume|fire}", act_on_schedule),
        web.get("/endpoints", endpoints_page),
        web.get("/batches", batches_page),
        web.get("/batches/{batch}", batch_page),
        web.post("/batches/{batch}/cancel", cancel_batch),
        web.get("/report", report_page),
    ]
