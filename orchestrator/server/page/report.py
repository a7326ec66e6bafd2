"""The report of a night, or of a longer period, as `orchestrator report` has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.report.listings import moment
from orchestrator.report.markup import tag
from orchestrator.report.page import sections
from orchestrator.server.context import context_of
from orchestrator.server.page.addresses import with_query
from orchestrator.server.page.layout import Page, respond
from orchestrator.server.remembered import remembered

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.report import Report

_HOUR = 3600.0
_PERIODS = {"12": "12 hours", "24": "24 hours", "72": "3 days", "168": "7 days"}


async def report_page(request: web.Request) -> web.Response:
    """Answer with the report of a period that ends now."""
    hours = request.query.get("hours", "")
    hours = hours if hours in _PERIODS else "24"
    app = context_of(request).app

    async def compute() -> Report:
        return await app.report(since=time.time() - int(hours) * _HOUR)

    figure = await remembered(request).get(("report", hours), compute)
    links = [
        tag("a", f"Last {name}", href=with_query("/report", hours=key), aria_current="true" if key == hours else None)
        for key, name in _PERIODS.items()
    ]
    pages = tag("p", *links, class_="pages")
    if figure is None:
        wait = tag("p", "The report is being made. This page shows it in a moment.", class_="empty")
        return respond(Page("Report", [pages, wait], "/report", ticks=True))
    report = figure.value
    as_of = tag("p", f"As of {moment(figure.at)}", class_="soft small")
    return respond(
        Page(f"Report, {words.title(report, None)}", [pages, *sections(report), as_of], "/report", live=False)
    )
