"""Ctrl-C and SIGTERM: once stops cleanly, twice cuts short; the endpoint is paused either way."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

import anyio

from orchestrator.cli.command import Interrupted
from orchestrator.domain.errors import RunStopped
from orchestrator.engine.progress import Phase
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskStatus

    from orchestrator.engine.progress import Progress

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def heeding_signals(work: Callable[[anyio.Event], Awaitable[T]], progress: Progress, grace: float) -> T:
    """Do the work; the event it is given is set by the first signal. `Interrupted` when a signal ended it.

    The first signal lets answers in flight come in (they are paid for), for at most `grace` seconds; the second does
    not. The receiver stands outside the scope that it cancels: inside, a second Ctrl-C would kill the pausing.
    """
    stop = anyio.Event()
    result: list[T] = []
    async with task_group() as outside:
        scope = anyio.CancelScope()
        await outside.start(_listen, stop, scope, progress, grace)
        with scope:
            try:
                result.append(await work(stop))
            except RunStopped as stopped:
                if not stop.is_set():
                    raise
                raise Interrupted(str(stopped)) from stopped
        outside.cancel_scope.cancel()
    if not result:
        raise Interrupted("interrupted; run the same command again to continue")
    return result[0]


async def _listen(
    stop: anyio.Event,
    scope: anyio.CancelScope,
    progress: Progress,
    grace: float,
    *,
    task_status: TaskStatus[None],
) -> None:
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        async for _ in signals:
            if stop.is_set() or progress.phase is not Phase.WORK:
                stop.set()
                scope.cancel()
            else:
                stop.set()
                progress.note = "stopping: waiting for the answers in flight; once more to cut short"
                scope.deadline = anyio.current_time() + grace
