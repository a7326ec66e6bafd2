"""Results: the rows of a run with their outcomes, in input order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.item import ItemResult, ItemState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.store import Store
    from orchestrator.store.views import ItemView


async def results_of(run_id: int, store: Store) -> AsyncIterator[ItemResult]:
    """Yield all rows of a run, settled or not, reading the ledger page by page; also works during the run."""
    async for page in store.views.pages(run_id):
        for result in await to_thread.run_sync(results_in, page):
            yield result


def results_in(page: Sequence[ItemView]) -> list[ItemResult]:
    """Return the rows of a page, with their JSON parsed."""
    return [_result(item) for item in page]


def _result(item: ItemView) -> ItemResult:
    kept = {} if item.kept is None else exact_json.loads(item.kept)
    if item.state is ItemState.COMPLETED and item.output is not None:
        return ItemResult(item.id, item.state, kept, item.attempts, output=exact_json.loads(item.output))
    if item.state is ItemState.DISCARDED:
        error = {"kind": item.kind, "status": item.status, "message": item.message}
        return ItemResult(item.id, item.state, kept, item.attempts, error=error)
    return ItemResult(item.id, item.state, kept, item.attempts)
