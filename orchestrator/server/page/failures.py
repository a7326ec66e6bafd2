"""What failed in a run: discarded items grouped by cause, each with a sample, and the button that asks them again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.phrases import count
from orchestrator.report.listings import moment
from orchestrator.report.markup import Markup, tag
from orchestrator.server.context import context_of, form_of
from orchestrator.server.ownership import run_of
from orchestrator.server.page.addresses import item_address, run_link, with_query
from orchestrator.server.page.layout import Page, action, respond
from orchestrator.server.remembered import causes_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.run import Cause, Run
    from orchestrator.server.remembered import Figure

_LATELY = 3.0  # seconds


async def failures_page(request: web.Request) -> web.Response:
    """Answer with the failures of a run."""
    run = run_of(request)
    figure = await causes_in(request, run.id)
    causes = [] if figure is None else figure.value
    body = [tag("p", run_link(run.id, f"Run {run.id} of {run.job}"), _as_of(figure), class_="state")]
    if figure is None:
        body.append(tag("p", "The failures are being counted. This page shows them in a moment.", class_="empty"))
    elif not causes:
        body.append(tag("p", "No item of this run is discarded.", class_="empty"))
    elif len(causes) > 1:
        total = sum(cause.items for cause in causes)
        body.append(tag("div", _retry(request, run, total, None), class_="actions"))
    body += [_cause(request, run, cause, number) for number, cause in enumerate(causes)]
    spoken, ticks = f"{count(len(causes), 'cause')} of failures", figure is None or run.holder is not None
    return respond(Page(f"Failures of run {run.id}", body, "/runs", spoken, ticks=ticks))


def _as_of(figure: Figure[Sequence[Cause]] | None) -> Markup:
    """Return the moment of what was counted a while ago, since counting takes long."""
    if figure is None or time.time() - figure.at < _LATELY:
        return Markup("")
    return tag("span", f" as of {moment(figure.at)}", class_="soft")


def _cause(request: web.Request, run: Run, cause: Cause, number: int) -> Markup:
    status = f" {cause.status}" if cause.status else ""
    sample = tag("a", cause.sample, href=item_address(run.id, cause.sample))
    listed = tag("a", f"List {count(cause.items, 'item')}", href=with_query(f"/runs/{run.id}/items", like=cause.sample))
    return tag(
        "section",
        tag("h2", tag("span", f"{count(cause.items, 'item')}: {cause.kind}{status}", id=f"cause-{number}"), listed),
        tag("p", cause.message, class_="message"),
        tag("p", "For example item ", sample, class_="soft"),
        tag("div", _retry(request, run, cause.items, cause.sample), class_="actions"),
        aria_labelledby=f"cause-{number}",
    )


def _retry(request: web.Request, run: Run, items: int, like: str | None) -> Markup:
    """Return the button that asks discarded items again: those like one item, or all."""
    which = f"all {items:,} discarded items" if like is None else count(items, "item")
    ask = f"Ask {which} of {run.job} again? Each attempt costs as much as before. A daemon executes the run."
    name = "Retry all" if like is None else "Retry these"
    field = [tag("input", type="hidden", name="like", value=like)] if like is not None else []
    return action(request, f"/runs/{run.id}/retry", name, *field, ask=ask, done="They are queued to be asked again")


async def retry(request: web.Request) -> web.Response:
    """Queue discarded items to be asked again, and go to the run that asks them."""
    like = (await form_of(request)).get("like")
    run = run_of(request)
    queued = await context_of(request).app.queue_retry(str(run.id), like=like)
    raise web.HTTPSeeOther(f"/runs/{queued.run.id}")
