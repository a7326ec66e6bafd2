"""One item: its request and answer, as a conversation if they are one, and every attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.domain.conversation import answer_turns, conversation_of
from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import ItemState
from orchestrator.domain.phrases import count, duration
from orchestrator.report.listings import ask_title, moment, note_on_asks
from orchestrator.report.markup import Markup, joined, tag
from orchestrator.server.context import context_of
from orchestrator.server.failures import Refused
from orchestrator.server.ownership import run_of
from orchestrator.server.page.addresses import run_link, with_query
from orchestrator.server.page.chat import chat, folded, json_block
from orchestrator.server.page.layout import Page, action, badge, respond, section, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp import web

    from orchestrator.domain.run import Run

_ASKS = 200  # of a transcript
_KINDS = {"completed": "good", "discarded": "bad", "retry_later": "warn"}
_OUTCOMES = {"retry_later": "failed, to be tried again"}


async def show_item(request: web.Request) -> web.Response:
    """Answer with the page of the item that the path names."""
    return await item_page(request, request.match_info["item"])


async def item_page(request: web.Request, item_id: str) -> web.Response:
    """Answer with the page of an item."""
    run = run_of(request)
    try:
        item = await context_of(request).app.item(str(run.id), item_id)
    except UsageError as error:
        raise Refused(404, str(error)) from error
    state, made = str(item["state"]), item["attempts"]
    attempts = made if isinstance(made, list) else []
    body = [
        tag("p", badge(state), " ", _where(run, item), class_="state"),
        _actions(request, run, item_id, state, attempts),
        *_content(item),
        *_asks(item["asks"]),
        _attempts(attempts),
    ]
    spoken = f"item {item_id} is {state}"
    return respond(Page(f"Item {item_id}", body, "/runs", spoken))


def _where(run: Run, item: Mapping[str, object]) -> Markup:
    position = item["position"]
    neighbours = tag("a", f"position {position:,}", href=with_query(f"/runs/{run.id}/items", after=_before(position)))
    return joined(neighbours, " of ", run_link(run.id, f"run {run.id} of {run.job}"))


def _before(position: object) -> int | None:
    """Return the position after which a list begins, so that it shows the item among its neighbours."""
    return position - 11 if isinstance(position, int) and position > 10 else None


def _actions(
    request: web.Request, run: Run, item_id: str, state: str, attempts: Sequence[Mapping[str, object]]
) -> Markup:
    if state != ItemState.DISCARDED or not attempts:
        return Markup("")
    field = tag("input", type="hidden", name="like", value=item_id)
    ask = f"Ask all items of run {run.id} again that were discarded for this cause? Each costs as much as before."
    again = action(request, f"/runs/{run.id}/retry", "Retry all like this", field, ask=ask, done="They are queued")
    alike = tag("a", "All that failed like this", href=with_query(f"/runs/{run.id}/items", like=item_id))
    return tag("div", again, alike, class_="actions")


# -- request and answer -----------------------------------------------------------------------------------------------


def _content(item: Mapping[str, object]) -> list[Markup]:
    """Return the request and the answer: together as one conversation if the request is one."""
    request, answer, output = item["request"], item["answer"], item["output"]
    conversation = conversation_of(request)
    if conversation is None:
        parts = [section("Request", json_block(request))]
        said = None
    else:
        said = answer_turns(answer)
        rest: list[tuple[str, object]] = [("Everything else in the request", conversation.settings)]
        rest += [("The answer as it came", answer)] if said and not isinstance(answer, str) else []
        more = [folded(title, json_block(value)) for title, value in rest if value]
        parts = [section("Conversation", chat([*conversation.turns, *(said or [])]), *more)]
    if answer is not None and said is None:
        parts.append(section("Answer", json_block(answer)))
    if output is not None and output != answer:
        parts.append(section("Output", json_block(output), aside="as delivered"))
    if item["kept"]:
        parts.append(section("Columns kept", json_block(item["kept"])))
    return parts


# -- asks -------------------------------------------------------------------------------------------------------------


def _asks(asks: object) -> list[Markup]:
    """Return the transcript of a rollout, up to what a browser shows quickly; a click opens an ask."""
    made = asks if isinstance(asks, list) else []
    shown = made[:_ASKS]
    parts = [folded(ask_title(ask), *_content({**ask, "output": None, "kept": None}), *_failed(ask)) for ask in shown]
    if note := note_on_asks(made):
        parts.insert(0, tag("p", note, class_="soft"))
    if len(made) > len(shown):
        parts.append(tag("p", f"and {len(made) - len(shown):,} more, which the command line shows", class_="soft"))
    return [section("Asks", *parts, aside=count(len(made), "ask"))] if parts else []


def _failed(ask: Mapping[str, Any]) -> list[Markup]:
    failures = [
        {**one, "number": number, "outcome": "discarded" if one["available_at"] is None else "retry_later"}
        for number, one in enumerate(ask["failures"], 1)
    ]
    return [_attempts(failures)] if failures else []


# -- attempts ---------------------------------------------------------------------------------------------------------


def _attempts(attempts: Sequence[Mapping[str, object]]) -> Markup:
    if not attempts:
        return section("Attempts", tag("p", "It has not been asked yet.", class_="empty"))
    heads = [("attempt", "n"), ("outcome", ""), ("cause", ""), ("status", "n"), ("took", "n"), ("ended", "when")]
    heads += [("then waited", "n"), ("message", "wide")]
    rows = [_row(attempt) for attempt in attempts]
    bodies = [
        folded(f"What the server answered to attempt {attempt['number']}", json_block(attempt["body"]))
        for attempt in attempts
        if attempt.get("body")
    ]
    return section("Attempts", table(heads, rows, "Each attempt"), *bodies, aside=count(len(rows), "attempt"))


def _row(attempt: Mapping[str, object]) -> list[str]:
    outcome, number = str(attempt["outcome"]), attempt["number"]
    return [
        str(number) if number else "not asked",
        tag("span", _OUTCOMES.get(outcome, outcome), class_=f"badge {_KINDS.get(outcome, '')}"),
        str(attempt.get("kind") or ""),
        str(attempt.get("status") or ""),
        _seconds(attempt["seconds"]),
        moment(at) if isinstance(at := attempt["at"], float) else "",
        _waited(attempt),
        str(attempt.get("message") or ""),
    ]


def _waited(attempt: Mapping[str, object]) -> str:
    at, until = attempt["at"], attempt.get("available_at")
    return duration(max(0.0, until - at)) if isinstance(at, float) and isinstance(until, float) else ""


def _seconds(seconds: object) -> str:
    if not isinstance(seconds, float):
        return ""
    return f"{seconds:.3f} s" if seconds < 1 else duration(seconds)
