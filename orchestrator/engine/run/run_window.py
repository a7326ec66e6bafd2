"""Run window: the time of day in which a run may ask, as its policy says."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import WindowOver
from orchestrator.domain.events import RunWindowClosed, RunWindowOpened

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.ports import EventListener

_LOOK = 30.0  # at most this many seconds between two looks at the clock, which may be put forward


class RunWindow:
    """The window of one run, if its policy has one."""

    def __init__(self, policy: Policy) -> None:
        self._window = policy.open_window
        self._words = policy.window

    def closes_in(self) -> float:
        """Return the seconds until it closes; infinite if the run has no window."""
        now = time.time()
        return inf if self._window is None else self._window.closes_at(now) - now

    def check(self) -> None:
        """Raise `WindowOver` if nothing may be asked now."""
        now = time.time()
        if self._window is not None and not self._window.is_open(now):
            opens_at = self._window.opens_at(now)
            raise WindowOver(
                f"its window ({self._words}) is over; run the same command again: it continues at {_shown(opens_at)}",
                opens_at,
            )

    async def opened(self, events: EventListener) -> None:
        """Return once the window is open."""
        reported: datetime | None = None
        while self._window is not None and (left := self._window.opens_at(time.time()) - time.time()) > 0:
            opens_at = datetime.fromtimestamp(round(time.time() + left), UTC)
            if opens_at != reported:
                events.emit(RunWindowClosed(str(self._words), opens_at))
            reported = opens_at
            await anyio.sleep(min(left, _LOOK))
        if reported is not None:
            events.emit(RunWindowOpened())

    async def closed(self) -> None:
        """Return once the window is over."""
        if self._window is None:
            await anyio.sleep_forever()
            return
        while self._window.is_open(now := time.time()):
            await anyio.sleep(min(self._window.closes_at(now) - now, _LOOK))


def _shown(moment: float) -> str:
    return f"{datetime.fromtimestamp(round(moment), UTC):%Y-%m-%d %H:%M:%S} UTC"
