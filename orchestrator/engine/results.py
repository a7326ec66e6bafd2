"""Results: the rows of a run with their outcomes, in input order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.item import ItemResult, ItemState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.store import Store
    from orchestrator.store.views import CompletedRow, ItemView


async def results_of(run_id: int, store: Store) -> AsyncIterator[ItemResult]:
    """Yield all rows of a run, settled or not, reading the ledger page by page; also works during the run."""
    async for page in store.views.pages(run_id):
        for result in await to_thread.run_sync(results_in, page):
            yield result


def results_in(page: Sequence[ItemView]) -> list[ItemResult]:
    """Return the rows of a page, with their JSON parsed."""
    kept = iter(exact_json.loads_all([item.kept for item in page if item.kept is not None]))
    outputs = iter(exact_json.loads_all([item.output for item in page if item.output is not None]))
    return [
        _result(item, {} if item.kept is None else next(kept), None if item.output is None else next(outputs))
        for item in page
    ]


def records_of(completed: Sequence[CompletedRow]) -> list[dict[str, object]]:
    """Return completed rows as sinks get them."""
    outputs = exact_json.loads_all([row[2] for row in completed])
    if not any(row[1] for row in completed):
        return [{"id": row[0], "output": output} for row, output in zip(completed, outputs, strict=True)]
    columns = exact_json.loads_all([row[1] or "{}" for row in completed])
    return [
        {"id": row[0], **kept, "output": output} for row, kept, output in zip(completed, columns, outputs, strict=True)
    ]


def _result(item: ItemView, kept: Mapping[str, object], output: object) -> ItemResult:
    match item.state:
        case ItemState.COMPLETED:
            return ItemResult(item.id, item.state, kept, item.attempts, output=output)
        case ItemState.DISCARDED:
            error = {"kind": item.kind, "status": item.status, "message": item.message}
            return ItemResult(item.id, item.state, kept, item.attempts, error=error)
        case _:
            return ItemResult(item.id, item.state, kept, item.attempts)
