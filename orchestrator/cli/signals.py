"""Ctrl-C and SIGTERM: once stops cleanly, twice cuts short; the endpoint is paused either way."""

from __future__ import annotations

import asyncio
import math
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import anyio

from orchestrator.cli.command import Interrupted
from orchestrator.domain.errors import RunStopped
from orchestrator.engine.progress import Phase
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.engine.progress import Progress
    from orchestrator.store.patience import Patience

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def heeding_signals(
    work: Callable[[anyio.Event], Awaitable[T]], progress: Progress, patience: Patience, grace: float
) -> T:
    """Do the work; the event it is given is set by the first signal. `Interrupted` when a signal ended it.

    The first signal lets answers in flight come in (they are paid for), for at most `grace` seconds; the second does
    not, nor is a ledger that others keep locked waited for any longer. The receiver stands outside the scope that it
    cancels: inside, a second Ctrl-C would kill the pausing.
    """
    stop = anyio.Event()
    result: list[T] = []
    async with task_group() as outside:
        scope = anyio.CancelScope()
        with received() as signals:
            outside.start_soon(_listen, signals, stop, scope, progress, patience, grace)
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


@contextmanager
def received() -> Iterator[MemoryObjectReceiveStream[int]]:
    """Receive signals. Once the block has ended they are ignored: what is left to do takes a moment.

    From one handler to the next there is no gap, as there is with `anyio.open_signal_receiver`: when its block ends,
    one more Ctrl-C is a traceback.
    """
    loop = asyncio.get_running_loop()
    sender, receiver = anyio.create_memory_object_stream[int](math.inf)

    def deliver(number: int) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the block has ended meanwhile
            sender.send_nowait(number)

    def receive(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(deliver, number)

    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with sender, receiver:
        for number in wanted:
            signal.signal(number, receive)
        try:
            yield receiver
        finally:
            for number in wanted:
                signal.signal(number, signal.SIG_IGN)


async def _listen(
    signals: MemoryObjectReceiveStream[int],
    stop: anyio.Event,
    scope: anyio.CancelScope,
    progress: Progress,
    patience: Patience,
    grace: float,
) -> None:
    async for _ in signals:
        if stop.is_set() or progress.phase is not Phase.WORK:
            stop.set()
            scope.cancel()
            patience.end_in(0)
        else:
            stop.set()
            patience.end_in(grace)
            progress.note = "stopping: waiting for the answers in flight; once more to cut short"
            scope.deadline = anyio.current_time() + grace
