"""All runs, newest first, by job and by state, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.run import RunState
from orchestrator.engine.status import state_word
from orchestrator.report.listings import moment
from orchestrator.report.markup import Markup, tag
from orchestrator.server.context import context_of
from orchestrator.server.ownership import discreet
from orchestrator.server.page.addresses import number_in, run_link, with_query
from orchestrator.server.page.layout import Page, badge, respond, section, table

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.run import Counts, Run

_MOST = 50  # runs on a page
_STATES = ("running", "held", *RunState)


async def runs_page(request: web.Request) -> web.Response:
    """Answer with a page of the list of runs."""
    job, state, before = request.query.get("job", ""), request.query.get("state", ""), number_in(request, "before")
    found = await context_of(request).app.runs(_MOST + 1, before=before, job=job or None, state=state or None)
    more = len(found) > _MOST
    runs = await discreet(request, [run for run, _ in found[:_MOST]])
    shown = [(run, counts) for run, (_, counts) in zip(runs, found, strict=False)]
    body = [_filters(job, state)]
    if shown:
        body.append(section("Latest" if before is None else f"Before run {before}", _table(shown)))
    else:
        body.append(tag("p", "There is no such run." if job or state else "There is no run yet.", class_="empty"))
    links = []
    if before is not None:
        links.append(tag("a", "Newest", href=with_query("/runs", job=job, state=state)))
    if more:
        older = with_query("/runs", job=job, state=state, before=shown[-1][0].id)
        links.append(tag("a", "Older", href=older, rel="next"))
    body.append(tag("p", *links, class_="pages") if links else Markup(""))
    return respond(Page("Runs", body, "/runs", live=before is None))


def _filters(job: str, state: str) -> Markup:
    choices = [
        tag("option", word or "any", value=word, selected="" if word == state else None) for word in ("", *_STATES)
    ]
    return tag(
        "form",
        tag("label", "Job", for_="job"),
        tag("input", type="search", name="job", value=job, id="job", placeholder="any"),
        tag("label", "State", for_="state"),
        tag("select", *choices, name="state", id="state"),
        tag("button", "Show"),
        method="get",
        action="/runs",
        class_="filters",
        role="search",
    )


def _table(found: list[tuple[Run, Counts]]) -> Markup:
    heads = [("run", "n"), ("job", "wide"), ("state", ""), ("items", "n"), ("completed", "n"), ("discarded", "n")]
    heads += [("begun", "when"), ("ended early because", "wide")]
    return table(heads, [_row(run, counts) for run, counts in found], "Runs")


def _row(run: Run, counts: Counts) -> list[str]:
    failures = tag("a", f"{counts.discarded:,}", href=f"/runs/{run.id}/failures") if counts.discarded else "0"
    return [
        run_link(run.id),
        tag("a", run.job, href=with_query("/runs", job=run.job)),
        badge(state_word(run)),
        f"{counts.total:,}",
        f"{counts.completed:,}",
        failures,
        "" if run.started_at is None else moment(run.started_at),
        run.error or "",
    ]
