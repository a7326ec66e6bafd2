"""The items of a run as a list: all, those in one state, or those that failed for the same cause as another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import ItemState
from orchestrator.report.markup import Markup, tag
from orchestrator.server.context import context_of
from orchestrator.server.ownership import run_of
from orchestrator.server.page.addresses import item_address, number_in, run_link, with_query
from orchestrator.server.page.item import item_page
from orchestrator.server.page.layout import Page, badge, respond, section, table

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.run import Run
    from orchestrator.store.views import ItemView

_MOST = 100  # items on a page
_SHOWN = 300  # characters of an answer or a message


async def items_page(request: web.Request) -> web.Response:
    """Answer with a page of a run's items in input order, or with the one item that `id` in the query names."""
    if named := request.query.get("id"):
        return await item_page(request, named)
    app, like = context_of(request).app, request.query.get("like") or None
    run, after = run_of(request), number_in(request, "after")
    state = _state(request.query.get("state", ""))
    at = -1 if after is None else after
    found = await app.items(str(run.id), state=state, like=like, after=at, limit=_MOST + 1)
    shown = found[:_MOST]
    body = [tag("p", run_link(run.id, f"Run {run.id} of {run.job}"), class_="state"), _filters(run, state)]
    if like is not None:
        words = tag(
            "p", "Those that failed for the same cause as item ", tag("a", like, href=item_address(run.id, like))
        )
        body.append(words)
    if shown:
        rows = [_row(run, view) for view in shown]
        heads = [("position", "n"), ("item", "wide"), ("state", ""), ("attempts", "n"), ("answer, or why not", "wide")]
        body.append(section("In input order", table(heads, rows, "Items")))
    else:
        body.append(tag("p", "There is no such item.", class_="empty"))
    if len(found) > _MOST:
        following = with_query(request.path, state=state, like=like, after=shown[-1].position)
        body.append(tag("p", tag("a", "Further items", href=following, rel="next"), class_="pages"))
    return respond(Page(f"Items of run {run.id}", body, "/runs", live=False))


def _state(given: str) -> ItemState | None:
    try:
        return ItemState(given) if given else None
    except ValueError:
        raise UsageError(f"state in the address is one of {', '.join(ItemState)}") from None


def _filters(run: Run, state: ItemState | None) -> Markup:
    choices = [
        tag("option", word or "any", value=word, selected="" if word == state else None) for word in ("", *ItemState)
    ]
    return tag(
        "form",
        tag("label", "State", for_="state"),
        tag("select", *choices, name="state", id="state"),
        tag("label", "or an item's id", for_="id"),
        tag("input", type="search", name="id", id="id"),
        tag("button", "Show"),
        method="get",
        action=f"/runs/{run.id}/items",
        class_="filters",
        role="search",
    )


def _row(run: Run, view: ItemView) -> list[str]:
    text = view.output if view.message is None or view.state is ItemState.COMPLETED else view.message
    text = text or ""
    return [
        f"{view.position:,}",
        tag("a", view.id, href=item_address(run.id, view.id)),
        badge(view.state),
        str(view.attempts),
        text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …",
    ]
