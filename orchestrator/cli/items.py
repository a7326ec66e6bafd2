"""orchestrator items, orchestrator item: list a run's items, and show one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import exact_json
from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import ItemState

if TYPE_CHECKING:
    from orchestrator.store import Store
    from orchestrator.store.views import ItemView

ThisRun = Annotated[str, typer.Argument(help="A run's number, or a job's name for its latest run.", metavar="RUN")]
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
    if json:
        views = with_store(context, partial(_items, run, state, limit, noted=noted), json=True)
        print_json({"items": [_as_json(view) for view in views]})
        return
    for item in with_store(context, partial(_items, run, state, limit, noted=noted)):
        text = item.output if item.message is None or item.state is ItemState.COMPLETED else item.message
        notes = [", ".join((item.notes or "").split())] if noted else []
        say(item.id, item.state, item.attempts, *notes, (text or "")[:_SHOWN])


def item(
    context: typer.Context,
    run: ThisRun,
    item_id: Annotated[str, typer.Argument(help="The item's id.", metavar="ID")],
    json: AsJson = False,
) -> None:
    """Show one item with every attempt, its request and its answer."""
    found = with_store(context, partial(_item, run, item_id), json=json)
    if json:
        print_json(found)
        return
    for key, value in found.items():
        if key == "attempts":
            continue
        say(f"{key}: {value if isinstance(value, str) else exact_json.dumps(value, default=str).decode()}")
    attempts = found["attempts"]
    for attempt in attempts if isinstance(attempts, list) else []:
        reason = " ".join(str(attempt[key]) for key in ("kind", "status", "message") if attempt.get(key) is not None)
        say(f"attempt {attempt['number']}: {attempt['outcome']} after {attempt['seconds']:.3f} s {reason}")


async def _items(name: str, state: ItemState | None, limit: int, store: Store, *, noted: bool) -> list[ItemView]:
    run = await store.runs.find(name)
    found: list[ItemView] = []
    async for page in store.views.pages(run.id, noted=noted):
        found += [view for view in page if state is None or view.state is state]
        if len(found) >= limit:
            break
    return found[:limit]


async def _item(name: str, item_id: str, store: Store) -> dict[str, object]:
    run = await store.runs.find(name)
    found = await store.views.item(run.id, item_id)
    if found is None:
        raise UsageError(f"run {run.id} of {run.job} has no item {item_id!r}; see `orchestrator items {run.id}`")
    return found


def _as_json(view: ItemView) -> dict[str, object]:
    error = None
    if view.state is not ItemState.COMPLETED and view.kind is not None:
        error = {"kind": view.kind, "status": view.status, "message": view.message}
    return {
        "id": view.id,
        "position": view.position,
        "state": view.state,
        "attempts": view.attempts,
        "output": None if view.output is None else exact_json.loads(view.output),
        "error": error,
        "notes": [word.partition(":")[0] for word in (view.notes or "").split()],
    }
