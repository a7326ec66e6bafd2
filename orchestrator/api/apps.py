"""The application for scripts: `BlockingApp` for ordinary code, `AsyncApp` for coroutines. Both have the same verbs."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import aclosing
from functools import partial, wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from anyio import to_thread

from orchestrator.api.calls import Call, check_may_block, interrupts
from orchestrator.api.stream import CommitListener, streamed
from orchestrator.api.verbs import Verbs
from orchestrator.config import choose_file
from orchestrator.domain.command_line import in_python
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.store.database import ledger_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
    from pathlib import Path

    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.config import Settings
    from orchestrator.job import Job

P = ParamSpec("P")
T = TypeVar("T")


class Connected:
    """A ledger and its settings, on which verbs are carried out, each as a call of its own, until it is closed."""

    def __init__(self, settings: Settings, options: Sequence[str] = ()) -> None:
        self._settings = settings
        self._options = options  # what a command in a message needs in order to find the same ledger
        self._calls: set[Call[Any]] = set()
        self._closed = False
        self._lock = Lock()

    def call(
        self, verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[T]:
        """Begin a call of a verb. Does not block."""
        __tracebackhide__ = True

        async def work(requests: MemoryObjectReceiveStream[None]) -> T:
            choose_file(self._settings)
            try:
                return await verb(Verbs(self._settings, requests, self._worded), *args, **kwargs)
            except OrchestratorError as error:
                error.args = (self._worded("; ".join([str(error), *getattr(error, "__notes__", ())])),)
                error.__notes__ = []
                raise

        with self._lock:
            if self._closed:
                raise UsageError("this application is closed: its `with` block has ended")
            call = Call(work)
            self._calls.add(call)
        call.future.add_done_callback(lambda _: self._calls.discard(call))
        call.begin()
        return call

    @property
    def ledger(self) -> str:
        """The path or URL of the ledger."""
        return self._settings.ledger

    def _worded(self, message: str) -> str:
        return in_python(message, self._options)

    def close(self) -> None:
        """Ask all calls to stop, and return once they have ended. Ctrl-C meanwhile is raised then."""
        calls = self._left()
        with interrupts(partial(_stop, calls)) as received:
            for call in calls:
                call.future.exception()
        if received:
            raise KeyboardInterrupt

    async def leave(self) -> None:
        """Do what `close` does, in a coroutine. A cancellation meanwhile is raised then, too."""
        calls = self._left()
        cancelled = None
        for call in calls:
            try:
                await call.leave()
            except CancelledError as error:
                cancelled = error
                _stop(calls)
        if cancelled is not None:
            raise cancelled

    def _left(self) -> list[Call[Any]]:
        """Begin no more calls, and return those that still work, each asked to stop."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        _stop(calls, again=False)
        return calls


def _stop(calls: Sequence[Call[Any]], *, again: bool = True) -> None:
    for call in calls:
        call.stop(again=again)


def _blocking(
    verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingApp, P], T]:
    @wraps(verb)
    def method(self: BlockingApp, /, *args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        check_may_block()
        return self._connected.call(verb, *args, **kwargs).wait()

    return method


def _awaited(
    verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncApp, P], Coroutine[Any, Any, T]]:
    @wraps(verb)
    async def method(self: AsyncApp, /, *args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        return await self._connected.call(verb, *args, **kwargs).result()

    return method


class BlockingApp:
    """All operations on one ledger, for ordinary code. Made by `with connect() as app`.

    Works in any thread, also where an event loop runs. In the main thread, Ctrl-C stops a run as in the command: it
    takes no new rows, and a second one cuts short what is in flight; `KeyboardInterrupt` is raised once its endpoints
    are paused.
    """

    def __init__(self, connected: Connected) -> None:
        self._connected = connected

    run = _blocking(Verbs.run)
    retry = _blocking(Verbs.retry)
    submit = _blocking(Verbs.submit)
    plan = _blocking(Verbs.plan)
    bench = _blocking(Verbs.bench)
    stop = _blocking(Verbs.stop)
    sweep = _blocking(Verbs.sweep)
    runs = _blocking(Verbs.runs)
    result = _blocking(Verbs.result)
    status = _blocking(Verbs.status)
    report = _blocking(Verbs.report)


class AsyncApp:
    """All operations on one ledger, for coroutines. Made by `async with connect() as app`.

    Cancelling a run is a stop: it takes no new rows, answers in flight come in, its endpoints are paused, and the
    cancellation is raised once that is confirmed.
    """

    def __init__(self, connected: Connected) -> None:
        self._connected = connected

    run = _awaited(Verbs.run)
    retry = _awaited(Verbs.retry)
    submit = _awaited(Verbs.submit)
    plan = _awaited(Verbs.plan)
    bench = _awaited(Verbs.bench)
    stop = _awaited(Verbs.stop)
    sweep = _awaited(Verbs.sweep)
    runs = _awaited(Verbs.runs)
    result = _awaited(Verbs.result)
    status = _awaited(Verbs.status)
    report = _awaited(Verbs.report)

    async def stream(
        self, job: Job | str | Path, *, limit: int | None = None, reuse: Sequence[str] = (), overwrite: bool = False
    ) -> AsyncGenerator[dict[str, Any]]:
        """Run a job, and yield its completed rows: first those that it has, in input order, then each once committed.

        Leaving the loop is a stop, as is cancelling it: `async with aclosing(app.stream(job)) as rows` waits until the
        endpoints are paused, and so does the end of `async with connect()`. Called again, it yields the rows that it
        has, and continues. Arguments are those of `run`.
        """
        commits = CommitListener()
        call = self._connected.call(Verbs.listened, commits, job, limit, reuse, overwrite=overwrite)
        ledger = await to_thread.run_sync(ledger_path, self._connected.ledger)
        async with aclosing(streamed(call, commits, ledger)) as rows:
            async for row in rows:
                yield row
