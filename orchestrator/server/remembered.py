"""Figures that can take seconds to compute, such as the causes of a hundred thousand failures.

Each is computed in the background. Whoever asks waits for a moment; if that is not enough, the last figure is the
answer, so a page is quick however large the ledger is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio
from aiohttp import web

from orchestrator.server.context import context_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.domain.run import Cause
    from orchestrator.engine.overview import CausesOf

T = TypeVar("T")
WAIT = 0.1  # seconds
_REST = 20.0  # times as long as it took, until a figure is computed again: at most a twentieth of a core
_MOST = 200  # figures
_CAUSES = 50  # of a run


@dataclass(frozen=True, slots=True)
class Figure(Generic[T]):
    """A figure, and the moment when it was true, in seconds since 1970 UTC."""

    value: T
    at: float


@dataclass(slots=True)
class _Entry:
    figure: Figure[object] | None = None
    failure: Exception | None = None
    fresh_until: float = 0.0  # on the monotonic clock
    computing: anyio.Event | None = field(default=None)


class Remembered:
    """The last figures, by what they are figures of."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._entries: dict[Hashable, _Entry] = {}

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> Figure[T] | None:
        """Return the figure; None if it is still being computed for the first time. Raises what `compute` raised."""
        entry = self._entries.pop(key, None) or _Entry()
        self._entries[key] = entry  # the latest used is the last
        if entry.computing is None and time.monotonic() >= entry.fresh_until:
            entry.computing = anyio.Event()
            self._tasks.start_soon(self._compute, entry, compute)
        if entry.computing is not None:
            with anyio.move_on_after(WAIT):
                await entry.computing.wait()
        while len(self._entries) > _MOST:
            del self._entries[next(iter(self._entries))]
        if entry.failure is not None:
            raise entry.failure
        return cast("Figure[T] | None", entry.figure)

    async def _compute(self, entry: _Entry, compute: Callable[[], Awaitable[object]]) -> None:
        begun, at = time.monotonic(), time.time()
        try:
            entry.figure, entry.failure = Figure(await compute(), at), None
        except Exception as failure:  # noqa: BLE001 - whoever asks for the figure gets it
            entry.failure = failure
        now = time.monotonic()
        entry.fresh_until = now if entry.failure else now + _REST * max(0.0, now - begun - WAIT)
        computing, entry.computing = entry.computing, None
        if computing is not None:
            computing.set()


REMEMBERED = web.AppKey("remembered", Remembered)


def remembered(request: web.Request) -> Remembered:
    """Return the figures that the server remembers."""
    return request.config_dict[REMEMBERED]


async def causes_in(request: web.Request, run_id: int) -> Figure[Sequence[Cause]] | None:
    """Return the causes of a run's failures; None while they are counted for the first time."""
    views = context_of(request).app.store.views
    return await remembered(request).get(("causes", run_id), partial(views.causes, run_id, _CAUSES))


def known_causes(request: web.Request) -> CausesOf:
    """Return what gives the causes of a run's failures as far as they are known."""

    async def causes(run_id: int, limit: int) -> Sequence[Cause]:
        figure = await causes_in(request, run_id)
        return [] if figure is None else figure.value[:limit]

    return causes
