"""Calls: work in a thread with an event loop of its own, for callers that block and for callers that await.

Because the loop is not the caller's, a run works where one runs already, keeps its leases if the caller's loop is
blocked, and pauses its endpoints even if the caller's loop is closed over it. Between calls, neither a thread nor
the ledger is open, so an idle notebook holds nothing, and a connection that is never left keeps no process alive.
`api/connection.py` imports the application only once it is opened.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

import anyio

from orchestrator.domain.errors import OrchestratorError, RunStopped, UsageError

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from anyio.streams.memory import MemoryObjectReceiveStream

    Requests = MemoryObjectReceiveStream[None]

T = TypeVar("T")
_WAKES_EVERY = 0.25  # seconds: in a notebook, an interrupt takes effect only when the event loop wakes


class Call(Generic[T]):
    """One piece of work in a thread of its own. It can be asked to stop, and asked again to cut it short.

    The caller's own loop, if there is one, may be blocked or closed meanwhile: neither keeps the work from holding its
    leases and pausing its endpoints. Nothing of a call is left once it has ended, and the process waits for its end.
    """

    def __init__(self, work: Callable[[Requests], Awaitable[T]]) -> None:
        self.future = Future[T]()
        self._loop = new_event_loop()
        self._work = work
        self._asked = False
        self._sender, self._requests = anyio.create_memory_object_stream[None](math.inf)

    def begin(self) -> None:
        """Begin the work. Does not block."""
        _CallThread(target=self._execute, name="orchestrator").start()

    def _execute(self) -> None:
        try:
            tell = anyio.run(self._perform, backend_options={"loop_factory": lambda: self._loop})
        except BaseException as failure:  # noqa: BLE001 - `exit()` in a task, for example
            tell = partial(self.future.set_exception, failure)
        tell()  # now that its loop has ended

    async def _perform(self) -> Callable[[], None]:
        """Do the work, and return what tells the caller how it ended."""
        try:
            with self._sender, self._requests:
                return partial(self.future.set_result, await self._work(self._requests))
        except BaseException as failure:  # noqa: BLE001 - it is raised by the caller
            return partial(self.future.set_exception, failure)

    def stop(self, *, again: bool = True) -> None:
        """Ask the work to stop, but not `again` unless that is wanted. Returns at once; safe in a signal handler."""
        if again or not self._asked:
            self._asked = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._request)

    def _request(self) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the work has ended
            self._sender.send_nowait(None)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait(self) -> T:
        """Block until the work has ended; return its result.

        In the main thread, Ctrl-C asks the work to stop, and `KeyboardInterrupt` is raised once it has ended.
        """
        __tracebackhide__ = True
        with interrupts(self.stop) as received:
            failure = self.future.exception()
        if received and (failure is None or isinstance(failure, RunStopped)):
            raise KeyboardInterrupt(str(failure or "")) from None
        return self._result()

    async def result(self) -> T:
        """Wait until the work has ended; return its result.

        A cancellation asks the work to stop, and is raised once it has ended. Cancelling again cuts it short. So does
        Ctrl-C then, if this is the main thread: for a second one, `asyncio.run` would leave without waiting, and a
        notebook would do nothing.
        """
        __tracebackhide__ = True
        try:
            await self._ended()
        except asyncio.CancelledError:
            await self._wait_out()
            self.check()
            raise
        return self._result()

    async def leave(self) -> None:
        """Ask the work to stop, and return once it has ended. A cancellation or Ctrl-C meanwhile is raised then."""
        cancelled, received = await self._wait_out()
        if cancelled is not None:
            raise cancelled
        if received:
            signal.raise_signal(signal.SIGINT)

    def check(self) -> None:
        """Raise the failure of work that has ended, unless it was only stopped."""
        failure = self.future.exception()
        if failure is not None and not isinstance(failure, RunStopped):
            self._result()

    async def _wait_out(self) -> tuple[asyncio.CancelledError | None, list[int]]:
        cancelled = None
        self.stop(again=False)
        with anyio.CancelScope(shield=True), interrupts(self.stop) as received:
            while not self.future.done():
                try:
                    await self._ended()
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.stop()
        return cancelled, received

    async def _ended(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self.future.add_done_callback(lambda _: _call_in(loop, ended.set))
        while not ended.is_set():
            with anyio.move_on_after(_WAKES_EVERY):
                await ended.wait()

    def _result(self) -> T:
        __tracebackhide__ = True
        failure = self.future.exception()
        if isinstance(failure, OrchestratorError):
            _raise(failure)
        return self.future.result()


class _CallThread(threading.Thread):
    """The thread of a call. Functions of a job that are called in its event loop must not block it."""


def check_may_block() -> None:
    """Raise `UsageError` if this is the thread of a call: waiting there for another one may wait for itself."""
    if isinstance(threading.current_thread(), _CallThread):
        raise UsageError("a `parse` function cannot run jobs or read the ledger: do so before or after the run")


def _raise(failure: OrchestratorError) -> NoReturn:
    """Raise an expected failure without the frames of its call."""
    __tracebackhide__ = True
    failure.__context__ = None  # groups of our tasks, for which IPython would print a plain traceback
    raise failure.with_traceback(None) from failure.__cause__


def _call_in(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed without waiting for its tasks
        loop.call_soon_threadsafe(action)


@contextmanager
def interrupts(action: Callable[[], None]) -> Iterator[list[int]]:
    """Call `action` at each Ctrl-C until the block ends, and yield a list of those received.

    Only the main thread receives signals; in others, and if SIGINT is ignored, nothing is installed. The handler that
    was there before is put back.
    """
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in {signal.SIG_IGN, None}:
        yield received
        return

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        action()

    signal.signal(signal.SIGINT, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)
