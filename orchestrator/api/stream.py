"""Stream: the answers of a run as they are committed, for an `async for` in the caller's event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from orchestrator.domain import events
from orchestrator.domain.item import ItemState
from orchestrator.engine.results import results_in
from orchestrator.store.settled_rows import SettledRows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from orchestrator.api.calls import Call
    from orchestrator.domain.events import RunEvent
    from orchestrator.domain.item import ItemResult
    from orchestrator.store.views import ItemView

    Row = dict[str, Any]
    Placed = tuple[int, ItemResult]  # a row with its place in the input

_AT_ONCE = 1000  # rows that are read from the ledger together


class CommitListener:
    """Passes what a run commits to the caller's event loop. An `EventListener`, called in the engine's loop."""

    def __init__(self) -> None:
        self.run: int | None = None
        self._loop = asyncio.get_running_loop()
        self._keys: list[int] = []
        self._began = False
        self._news = asyncio.Event()

    def emit(self, event: RunEvent) -> None:
        """Note the run, that its items are in the ledger, and the keys of answers."""
        match event:
            case events.RunBegan(run=run):
                self.run = run
            case events.WorkBegan() | events.DeliveryBegan():
                self._began = True
            case events.ItemsSettled(keys=keys):
                self._keys.extend(keys)
            case _:
                return
        self.notify()

    def notify(self) -> None:
        """Wake the waiting stream."""
        with suppress(RuntimeError):  # the caller's loop is closed
            self._loop.call_soon_threadsafe(self._news.set)

    async def changed(self) -> None:
        """Return when something has happened since the last call."""
        await self._news.wait()
        self._news.clear()

    @property
    def began(self) -> bool:
        """Whether the items of the run are in the ledger, with all answers that it had before."""
        return self._began and self.run is not None

    def take(self) -> list[int]:
        """Return some keys of answers that were committed, in that order, and forget them."""
        taken, self._keys[:_AT_ONCE] = self._keys[:_AT_ONCE], []
        return taken


async def streamed(call: Call[Any], commits: CommitListener, ledger: Path) -> AsyncGenerator[Row]:
    """Yield the completed rows of a run: what was answered before, in input order, then answers as they are committed.

    Each row comes once. Raises what the run raises, after its last row. The run is asked to stop, and has ended, once
    the generator is closed.
    """
    call.future.add_done_callback(lambda _: commits.notify())
    try:
        while not (commits.began or call.future.done()):
            await commits.changed()
        if commits.run is not None and commits.began:
            async with _opened(ledger, commits.run) as rows:
                seen = _Seen()
                pages = _parsed(rows)
                while page := await to_thread.run_sync(next, pages, None):
                    for row in seen.new(page):
                        yield row
                while True:
                    ended = call.future.done()
                    while keys := commits.take():
                        for row in seen.new(await to_thread.run_sync(_in_order, rows, keys)):
                            yield row
                    if ended:
                        break
                    await commits.changed()
        await call.result()
    finally:
        await call.leave()
        call.check()


class _Seen:
    """The rows that were yielded, one bit for each position of the input."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def new(self, page: Sequence[Placed]) -> Iterator[Row]:
        """Yield the completed rows that are new, and note them."""
        for position, item in page:
            byte, bit = divmod(position, 8)
            self._bits.extend(bytes(max(0, byte + 1 - len(self._bits))))
            if item.state is ItemState.COMPLETED and not self._bits[byte] >> bit & 1:
                self._bits[byte] |= 1 << bit
                yield item.record()


def _parsed(rows: SettledRows) -> Iterator[list[Placed]]:
    for page in rows.pages(ItemState.COMPLETED):
        yield _placed(page)


def _in_order(rows: SettledRows, keys: Sequence[int]) -> list[Placed]:
    found = {view.key: view for view in rows.of(keys)}
    return _placed([found[key] for key in keys if key in found])


def _placed(page: Sequence[ItemView]) -> list[Placed]:
    return [(view.position, item) for view, item in zip(page, results_in(page), strict=True)]


@asynccontextmanager
async def _opened(ledger: Path, run_id: int) -> AsyncIterator[SettledRows]:
    opened = SettledRows.open(ledger, run_id)
    rows = await to_thread.run_sync(opened.__enter__)
    try:
        yield rows
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(opened.__exit__, None, None, None)
