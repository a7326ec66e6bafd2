"""Linger: keep an endpoint awake for a next run, which then need not wait for it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

from orchestrator.domain.events import LingerBegan
from orchestrator.domain.waiting import pays_to_pause
from orchestrator.engine.awake.awake import POLL

if TYPE_CHECKING:
    import anyio

    from orchestrator.engine.awake.awake import Awake
    from orchestrator.engine.stop import Stop

HAND_OVER = 5.0  # seconds that a daemon gets to take a run from the queue


class Coming(Protocol):
    """Tells whether a queued run is about to use the endpoint; with `free`, even one that no daemon has taken yet."""

    async def __call__(self, now: float, *, free: bool) -> bool:
        """Whether such a run is queued at the time `now`."""
        ...


async def is_wanted(lent: Awake, coming: Coming) -> bool:
    """Whether to keep it awake for a next run: its terms say so, or a queued run is about to use it."""
    if not lent.was_used or lent.terms is None:
        return False
    return lent.terms.linger > 0 or await coming(time.time(), free=True)


async def linger(lent: Awake, stop: Stop, coming: Coming, delivered: anyio.Event) -> None:
    """Keep the endpoint awake for a next run, as long as its terms say or one is about to start, or until `stop`.

    A daemon, if there is one, gets some seconds to take a queued run once this one is `delivered`, since the other
    may wait for this one. A delivery alone keeps no endpoint awake.
    """
    begun, delivered_at, terms = time.monotonic(), math.inf, lent.terms
    lent.emit(LingerBegan(lent.name))
    with lent.counted("idle"):
        while terms is not None and not (stop.requested or lent.may_cost_no_more):
            now = time.monotonic()
            if delivered.is_set():
                delivered_at = min(delivered_at, now)
            over = now - begun - terms.linger
            if pays_to_pause(over, lent.cold_start):  # the next run may still be reading its source
                return
            if over >= 0 and not await coming(time.time(), free=min(over, now - delivered_at) < HAND_OVER):
                return
            await stop.sleep(POLL)
