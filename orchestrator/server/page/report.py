"""The report of a night, or of a longer period, as `orchestrator report` has it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain import report_words as words
from orchestrator.report.listings import moment
from orchestrator.report.markup import Markup, tag
from orchestrator.report.page import sections
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.ownership import readable
from orchestrator.server.page.addresses import period_links
from orchestrator.server.page.layout import Page, respond
from orchestrator.server.remembered import remembered

if TYPE_CHECKING:
    from aiohttp import web


_HOUR = 3600.0
_IN_FULL = 12  # runs, with all their charts
_PERIODS = {"12": "12 hours", "24": "24 hours", "72": "3 days", "168": "7 days"}


async def report_page(request: web.Request) -> web.Response:
    """Answer with the report of a period that ends now."""
    hours = request.query.get("hours", "")
    hours = hours if hours in _PERIODS else "24"
    app = context_of(request).app

    async def compute() -> tuple[str, list[Markup]]:
        report = await readable(request, await app.report(since=time.time() - int(hours) * _HOUR))
        title = f"Report, {words.title(report, None)}"
        return title, await to_thread.run_sync(partial(sections, report, most=_IN_FULL))  # many charts take a second

    figure = await remembered(request).get(("report", hours, identity_of(request).only), compute)
    pages = period_links("/report", "hours", _PERIODS, hours)
    if figure is None:
        wait = tag("p", "The report is being made. This page shows it in a moment.", class_="empty")
        return respond(Page("Report", [pages, wait], "/report", ticks=True))
    title, parts = figure.value
    as_of = tag("p", f"As of {moment(figure.at)}; at most {_IN_FULL} runs are shown in full", class_="soft small")
    return respond(Page(title, [pages, *parts, as_of], "/report", live=False))
