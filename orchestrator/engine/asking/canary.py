"""Canary: a few items, spread over the lengths of requests, that are asked before all others.

A canary is leased before all else: `store/canaries.py` gives each of its items a chunk of its own, `Canary` says
which chunks may be leased next, and once they are settled, `AfterCanary` (`engine/run/after_canary.py`) decides
whether everything else is. All this happens inside one shift, so the endpoint stays awake. A canary alone
(`App.canary`) ends with `CanaryEnded`, which leaves an ordinary stopped run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.store.items import MOST_CHUNKS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_APART = 4  # one of so many is asked with one other beside it, to see what a request takes by itself
_PAIR = 2


class Canary:
    """Chooses what may be leased. A part is leased once all that was leased before is settled.

    First come pairs of items, then the others at once. Then `goes_on` says whether everything else is asked.
    """

    def __init__(self, chunks: Sequence[int], goes_on: Callable[[], Awaitable[bool]]) -> None:
        """`chunks`: the numbers of the chunks with its items, by the length of their requests."""
        apart = chunks[::_APART]
        pairs = [apart[at : at + _PAIR] for at in range(0, len(apart), _PAIR)]
        others = [chunk for place, chunk in enumerate(chunks) if place % _APART]
        together = [others[at : at + MOST_CHUNKS] for at in range(0, len(others), MOST_CHUNKS)]
        self._parts = [*pairs, *together]
        self._goes_on = goes_on
        self.asks = True  # until it is decided whether the others are asked
        self.stopped = False

    async def next(self) -> Sequence[int] | None:
        """Return the chunks that may be leased next: none if nothing more is asked; None stands for all."""
        if self._parts:
            return self._parts.pop(0)
        if self.asks:
            self.stopped = not await self._goes_on()
            self.asks = False
        return () if self.stopped else None
