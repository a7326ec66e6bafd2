"""The application for scripts: `BlockingApp` for ordinary code, `AsyncApp` for coroutines. Both have the same verbs."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from orchestrator.api.calls import Call
from orchestrator.api.verbs import Verbs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from anyio.from_thread import BlockingPortal

    from orchestrator.config import Settings

P = ParamSpec("P")
T = TypeVar("T")


class Connected:
    """An event loop in a thread of its own, in which verbs are carried out. It works whatever loop the caller has."""

    def __init__(self, portal: BlockingPortal, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self._portal = portal
        self._loop = loop
        self._settings = settings
        self._calls: set[Call[Any]] = set()

    def call(
        self, verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[T]:
        """Begin a call of a verb."""
        call = Call(self._portal, self._loop, lambda requests: verb(Verbs(self._settings, requests), *args, **kwargs))
        self._calls.add(call)
        call.future.add_done_callback(partial(self._forget, call))
        return call

    def _forget(self, call: Call[Any], _future: object) -> None:
        self._calls.discard(call)

    def stop(self) -> None:
        """Ask all calls to stop."""
        for call in list(self._calls):
            call.stop()


def _blocking(
    verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingApp, P], T]:
    @wraps(verb)
    def method(self: BlockingApp, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._connected.call(verb, *args, **kwargs).wait()

    return method


def _awaited(
    verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncApp, P], Coroutine[Any, Any, T]]:
    @wraps(verb)
    async def method(self: AsyncApp, /, *args: P.args, **kwargs: P.kwargs) -> T:
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
    submit = _blocking(Verbs.submit)
    plan = _blocking(Verbs.plan)
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
    submit = _awaited(Verbs.submit)
    plan = _awaited(Verbs.plan)
    stop = _awaited(Verbs.stop)
    sweep = _awaited(Verbs.sweep)
    runs = _awaited(Verbs.runs)
    result = _awaited(Verbs.result)
    status = _awaited(Verbs.status)
    report = _awaited(Verbs.report)
