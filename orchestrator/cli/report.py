"""orchestrator report: the results of a period, or of a run, as text, JSON and HTML."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import fail, print_json, with_app
from orchestrator.cli.html_file import check_page, write_page
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import Terminal
from orchestrator.domain.command_line import with_options
from orchestrator.domain.errors import UsageError
from orchestrator.domain.local_path import local_path
from orchestrator.domain.moment import since as moment
from orchestrator.domain.report_json import as_json
from orchestrator.report.page import page
from orchestrator.report.text import show

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.domain.report import Report

SomeRun = Annotated[
    str | None,
    typer.Argument(
        help="A run's number, or a job's name for its latest run; without it, the report is on a period.",
        metavar="[RUN]",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Start of the period: yesterday (the default), today, 12h, 2d, 2026-11-20, 2026-11-20T18:00.",
        metavar="WHEN",
    ),
]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.", metavar="FILE")]


def report(
    context: typer.Context, run: SomeRun = None, since: Since = None, html: Html = None, json: AsJson = False
) -> None:
    """Report on a period or a run: what finished, what failed and why, what it cost, how endpoints were left."""
    if run is not None and since is not None:
        fail(UsageError("give either RUN or --since, not both"), json=json)
    try:
        begun = moment(since or "yesterday", time.time())
    except ValueError as error:
        fail(UsageError(f"--since {error}"), json=json)
    found = with_app(context, partial(_gather, run, begun, html), json=json)
    if html is not None:
        write_page(html, page(found), json=json)
    if json:
        print_json(as_json(found))
    elif html is None:
        show(found, Terminal(soft_wrap=True), worded=partial(with_options, options=Terminal.given))


async def _gather(run: str | None, since: float, html: Path | None, app: App) -> Report:
    if html is not None:
        await to_thread.run_sync(check_page, local_path(html), app.store.database.path)
    return await app.report(run, since=since)
