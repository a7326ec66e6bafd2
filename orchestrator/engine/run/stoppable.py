"""Work that stops when its caller asks: the first request drains, the second cuts short; the endpoint is paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from orchestrator.domain.errors import Interrupted, RunStopped
from orchestrator.domain.events import Phase
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine

    from orchestrator.engine.progress import Progress
    from orchestrator.store.busy_timeout import BusyTimeout

T = TypeVar("T")


async def stoppable(
    requests: AsyncIterable[object],
    work: Callable[[Stop], Awaitable[T]],
    progress: Progress,
    busy_timeout: BusyTimeout,
    grace: float,
    aborted: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> T:
    """Do the work, and ask it to stop at each request. Raises `Interrupted` if a request ended it.

    After the first request, answers in flight have `grace` seconds to arrive, since they are paid for. After that, or
    at the second one, they are cancelled, and waiting for a locked ledger ends; then `aborted` runs until the work has
    ended. Requests are received outside the scope that they cancel: inside it, the second one would cancel the pausing.
    """
    stop = Stop()
    result: list[T] = []
    async with task_group() as outside:

        async def after_grace(then: Callable[[], Awaitable[None]]) -> None:
            await anyio.sleep_until(stop.deadline)
            await then()

        async def listen() -> None:
            async for _ in requests:
                if stop.requested or progress.phase is not Phase.WORK:
                    if aborted is not None and not stop.aborting:
                        outside.start_soon(aborted)
                    stop.abort()
                    busy_timeout.end_in(0)
                else:
                    stop.drain(grace)
                    busy_timeout.end_in(grace)
                    if aborted is not None:
                        outside.start_soon(after_grace, aborted)

        outside.start_soon(listen)
        with stop.until_deadline():
            try:
                result.append(await work(stop))
            except RunStopped as stopped:
                if not stop.requested:
                    raise
                raise Interrupted(str(stopped)) from stopped
        outside.cancel_scope.cancel()
    if not result:
        raise Interrupted(f"interrupted{progress.done}; run the same command again to continue")
    return result[0]
