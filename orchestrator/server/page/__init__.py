"""The page: HTML that the server renders, kept up to date by a short script.

`layout` has the frame and the parts of every page, `assets` the files that it loads, `curves` what the script draws,
`actions` what most buttons do. Every other module is one page, or a few that belong together.

`server/page/` has the pages, which the server renders whole: a module for each, made of the parts in `layout.py`,
from one call of `App`. `app.js` keeps them up to date: when `/events` says that something happened (at most once a
second, and never in a hidden tab), it fetches the same address again and changes only what differs in the document,
so no page has a second form, focus and selection stay, and every page works without the script. Figures of curves
are JSON in an attribute, which uPlot draws. An action is a form; the script asks first. What a live page shows is
gathered by `engine/overview.py`, which reads less than the report. What can take seconds to compute (causes of very
many failures, the report of a week) goes through `server/remembered.py`: it is computed in the background, a page
waits for it a tenth of a second, and shows the last figure if that is not enough. A chat is shown as one by
`domain/conversation.py`, which turns requests and answers of any shape into turns. Files have a hash in their
address (`assets.py`) and are kept for ever.
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
