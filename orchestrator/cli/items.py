"""orchestrator items, orchestrator item: list a run's items, and show one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import exact_json
from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.options import AsJson, ThisRun
from orchestrator.cli.terminal import say_fields
from orchestrator.domain.item import ItemState
from orchestrator.report.listings import ask_title, item_json, note_on_asks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.app import App
    from orchestrator.store.views import ItemView

_SHOWN = 100  # characters of an output that are shown in a line


def items(
    context: typer.Context,
    run: ThisRun,
    state: Annotated[
        ItemState | None, typer.Option(help=f"Only items in this state: {', '.join(ItemState)}.", metavar="STATE")
    ] = None,
    noted: Annotated[
        bool, typer.Option("--noted", help="Only items with a note: input or answer cut, answer empty ...")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, in input order.")] = 1000,
    json: AsJson = False,
) -> None:
    """List a run's items in input order."""

    async def listed(app: App) -> list[ItemView]:
        return await app.items(run, state=state, noted=noted, limit=limit)

    if json:
        views = with_app(context, listed, json=True)
        print_json({"items": [item_json(view) for view in views]})
        return
    for item in with_app(context, listed):
        text = item.output if item.message is None or item.state is ItemState.COMPLETED else item.message
        notes = [", ".join((item.notes or "").split())] if noted else []
        say_fields(item.id, item.state, item.attempts, *notes, (text or "")[:_SHOWN])


def item(
    context: typer.Context,
    run: ThisRun,
    item_id: Annotated[str, typer.Argument(help="The item's id.", metavar="ID")],
    json: AsJson = False,
) -> None:
    """Show one item with every attempt, its request, its answer, and its asks."""
    found = with_app(context, lambda app: app.item(run, item_id), json=json)
    if json:
        print_json(found)
        return
    for key, value in found.items():
        if key not in {"attempts", "asks"}:
            say_fields(f"{key}: {_text(value)}")
    attempts, asks = found["attempts"], found["asks"]
    asks = asks if isinstance(asks, list) else []
    for ask in asks:
        _show_ask(ask)
    if note := note_on_asks(asks):
        say_fields(note)
    for attempt in attempts if isinstance(attempts, list) else []:
        say_fields(
            f"attempt {attempt['number']}: {attempt['outcome']} after {attempt['seconds']:.3f} s {_why(attempt)}"
        )


def _show_ask(ask: Mapping[str, Any]) -> None:
    say_fields(f"ask {ask_title(ask)}")
    say_fields(f"  request: {_text(ask['request'])}")
    for failure in ask["failures"]:
        say_fields(f"  failed after {failure['seconds']:.3f} s {_why(failure)}")
    if ask["outcome"] == "completed":
        say_fields(f"  answer: {_text(ask['answer'])}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else exact_json.dumps(value, default=str).decode()


def _why(failure: Mapping[str, Any]) -> str:
    return " ".join(str(failure[key]) for key in ("kind", "status", "message") if failure.get(key) is not None)
