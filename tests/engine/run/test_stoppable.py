"""Work that does not end when it is asked to stop: what then runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from orchestrator.engine.progress import Progress
from orchestrator.engine.run.stoppable import stoppable
from orchestrator.store.busy_timeout import BusyTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.engine.stop import Stop


async def test_work_that_goes_on_after_the_time_for_answers_is_aborted_by_one_request() -> None:
    forced = anyio.Event()

    async def once() -> AsyncIterator[int]:
        yield 1

    async def work(stop: Stop) -> str:
        with anyio.CancelScope(shield=True):  # as code that is not to be cut off
            await forced.wait()
        return "ended" if stop.aborting else "too early"

    async def aborted() -> None:
        forced.set()

    with anyio.fail_after(60):
        assert await stoppable(once(), work, Progress(), BusyTimeout(1.0), 0.05, aborted) == "ended"
