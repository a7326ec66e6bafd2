"""When each endpoint was awake and why: a time line, what each time cost, how it was left, and debts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.phrases import count, duration, money
from orchestrator.report.charts import Bar, ChartRow, Frame, timeline
from orchestrator.report.listings import moment
from orchestrator.report.markup import Markup, joined, listed, tag
from orchestrator.server.context import context_of
from orchestrator.server.page.addresses import period_links, run_link
from orchestrator.server.page.layout import Page, respond, section, table, tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from orchestrator.engine.awakenings import Awakening, Awakenings

_DAY = 86_400.0
_PERIODS = {"1": "24 hours", "7": "7 days", "30": "30 days"}
_LISTED = 60  # windows in the table
_USERS = 4  # runs that are named for each


async def endpoints_page(request: web.Request) -> web.Response:
    """Answer with the page of the endpoints."""
    days = request.query.get("days", "")
    days = days if days in _PERIODS else "1"
    found = await context_of(request).app.awakenings(time.time() - int(days) * _DAY)
    awake = [one for one in found.windows if one.window.billed_to is None]
    body = [*_debts(found), period_links("/endpoints", "days", _PERIODS, days)]
    if found.windows:
        body += [_figures(found, awake), _timeline(found), _windows(found)]
    else:
        rest = f"No endpoint that bills was awake in the last {_PERIODS[days]}. Nothing is owed."
        body.append(tag("p", rest, class_="notice good"))
    spoken = f"{count(len(awake), 'endpoint')} awake, {count(len(found.debts), 'pause')} owed"
    return respond(Page("Endpoints", body, "/endpoints", spoken, ticks=bool(awake)))


def _debts(found: Awakenings) -> list[Markup]:
    return [
        tag(
            "div",
            tag("p", words.debt_line(debt, found.until, None)),
            tag("p", "Look at it now, then type ", tag("code", "orchestrator sweep")),
            class_="notice bad",
            role="alert",
        )
        for debt in found.debts
    ]


def _figures(found: Awakenings, awake: Sequence[Awakening]) -> Markup:
    costs = [one.cost(found.until) for one in found.windows]
    known = [cost for cost in costs if cost is not None]
    cost = money(sum(known)) if known else "unknown"
    seconds = sum(one.seconds(found.until) for one in found.windows)
    return tiles(
        [
            (str(len(awake)), "awake now"),
            (f"{len(found.windows):,}{'' if found.all_shown else '+'}", "times awake"),
            (duration(seconds), "awake in all"),
            (cost, "cost" if len(known) == len(costs) else "cost, and unknown prices"),
        ]
    )


def _timeline(found: Awakenings) -> Markup:
    names = sorted({one.window.endpoint for one in found.windows})
    rows = [
        ChartRow(name, [_bar(one, found.until) for one in reversed(found.windows) if one.window.endpoint == name])
        for name in names
    ]
    since = found.since if found.all_shown else found.windows[-1].window.billed_from
    legend = [("awake", "awake"), ("trouble", "may still be awake, its pause is owed")]
    shown = {bar.kind for row in rows for bar in row.bars}
    keys = [tag("span", tag("i", class_=kind), says) for kind, says in legend if kind in shown]
    return section(
        "When each was awake", timeline(rows, Frame(since, found.until, None)), tag("p", *keys, class_="legend")
    )


def _bar(one: Awakening, now: float) -> Bar:
    window = one.window
    users = ", ".join(dict.fromkeys(use.job or "by hand" for use in one.uses))
    cost = money(one.cost(now))
    says = f"{window.endpoint}: awake {duration(one.seconds(now))}, {cost}\n{moment(window.billed_from)}, for {users}"
    ended = "still awake" if window.billed_to is None else words.proof_line(window, None)
    return Bar(
        window.billed_from, window.billed_to or now, "trouble" if window.is_debt else "awake", f"{says}\n{ended}"
    )


def _windows(found: Awakenings) -> Markup:
    heads = [("endpoint", "wide"), ("woken", "when"), ("awake", "n"), ("cost", "n"), ("why", "wide")]
    heads.append(("how it was left", "wide"))
    rows = [_row(one, found.until) for one in found.windows[:_LISTED]]
    rest = len(found.windows) - len(rows)
    more = tag("p", f"{count(rest, 'earlier time')} not listed", class_="soft small") if rest else Markup("")
    return section("Each time", table(heads, rows, "Awake windows"), more, aside="latest first")


def _row(one: Awakening, now: float) -> list[str]:
    window = one.window
    return [
        window.endpoint,
        moment(window.billed_from),
        duration(one.seconds(now)),
        money(one.cost(now)),
        _why(one),
        _left(one),
    ]


def _why(one: Awakening) -> Markup:
    """Return what used the endpoint, and what the seconds were spent on."""
    kept = [user.kept_by for user in one.window.users if user.kept_by]
    uses: dict[str, Markup] = {}
    for use in one.uses:
        if use.run_id is not None:
            uses.setdefault(str(use.run_id), joined(run_link(use.run_id, f"run {use.run_id}"), f" of {use.job}"))
        elif use.job is not None:
            uses.setdefault(use.job, joined(use.job))
    parts = [*list(uses.values())[:_USERS], *(joined(f"kept awake by {name}") for name in kept)]
    if len(uses) > _USERS:
        parts.append(joined(count(len(uses) - _USERS, "more run")))
    named = listed(parts)
    spent = [use.spent for use in one.uses if use.spent.seconds]
    how = words.spent_line(sum(spent[1:], spent[0])) if spent else ""
    return joined(named or "a command", tag("span", how, class_="small soft line") if how else "")


def _left(one: Awakening) -> Markup:
    window = one.window
    if window.is_debt:
        return tag("span", "its pause is owed", class_="badge bad")
    if window.billed_to is None:
        # until the provider says otherwise, its words are those from before the endpoint was woken
        is_read = window.seen in {EndpointState.AWAKE, EndpointState.FAILED}
        seen = f", read as {window.said or window.seen} at {moment(window.looked_at)}" if is_read else ""
        return joined(tag("span", "awake", class_="badge warn"), seen)
    return joined(words.proof_line(window, None))
