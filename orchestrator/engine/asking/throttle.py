"""Throttle: when an endpoint may be asked, given the policy's rate, the server's cooldowns and its refusals."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.events import CooldownBegan, CooldownEnded
from orchestrator.domain.pace import Cooldown
from orchestrator.domain.refusals import Refusals
from orchestrator.domain.waiting import WORTH_PAUSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.item import Item
    from orchestrator.domain.pace import Pace
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import EventListener

_STEP_BACK = 1.0  # at most this many seconds by which other items go before one that was refused


class Throttle:
    """Everything that delays requests to one endpoint. The pace belongs to the run, the rest to this connection."""

    def __init__(self, pace: Pace, endpoint: str, events: EventListener) -> None:
        self.cooldown = Cooldown()
        self.crowd: int | None = None  # how many were in flight when the last cooldown began
        self._pace = pace
        self._endpoint = endpoint
        self._events = events
        self._cools_down = False  # whether listeners know of a cooldown, and not yet of its end
        self._refusals = Refusals()

    @property
    def ready_at(self) -> float:
        """The moment, on the monotonic clock, before which nothing may be asked."""
        return max(self.cooldown.until, self._pace.next)

    @property
    def until(self) -> tuple[float, str]:
        """`ready_at`, and the reason."""
        return max(
            (self.cooldown.until, "the server asked us to wait"),
            (self._pace.next, "policy.requests_per_minute and policy.tokens_per_minute allow no more"),
        )

    def begin(self) -> None:
        """Count a request that goes out now."""
        self._pace.take(time.monotonic())

    async def begin_another(self, stop: Stop) -> bool:
        """Wait for the pace before one more request for the items in flight. False if it is not worth waiting."""
        now = time.monotonic()
        if self._pace.next - now > WORTH_PAUSING:
            return False
        if (wait := self._pace.take(now)) > 0:
            await stop.sleep(wait)
        return not stop.requested

    def spent(self, tokens: int) -> None:
        """Count the tokens that a request took."""
        self._pace.spent(time.monotonic(), tokens)

    def succeeded(self, begun: float, generation: int, quiet_until: float) -> bool:
        """Record a success of this generation; return whether more requests may now be in flight than before."""
        now, probed = time.monotonic(), self.cooldown.probing
        self.cooldown.succeeded(now, generation, now - begun)
        self._refusals.succeeded(begun)
        if quiet_until > begun:
            self.cooldown.hold(now, quiet_until)
        if self._cools_down and generation == self.cooldown.generation:
            self._cools_down = False
            self._events.emit(CooldownEnded(self._endpoint))
        return probed and not self.cooldown.probing

    def refused(self, batch: Sequence[Item], generation: int, retry_after: float | None, in_flight: int) -> None:
        """Begin a cooldown, unless it is only this item that the server refuses."""
        now = time.monotonic()
        if len(batch) > 1:
            self._refusals.refused_together(now)
        elif self._refusals.refused(now, batch[0].key) > 1:
            return
        if self.cooldown.refused(now, generation, retry_after):
            self.crowd, self._cools_down = in_flight, True
            self._events.emit(CooldownBegan(self._endpoint, self.cooldown.until - now))

    def alone(self, item: Item) -> int:
        """Return how many times in a row this item has been refused while others were not."""
        return self._refusals.alone(item.key)

    def put_off(self, delay: float) -> float:
        """Return the seconds after which a refused item is asked again, given its own `delay`.

        After a cooldown, other items are asked first: their answers show whether the server or this item is at fault.
        """
        held = min(max(0.0, self.cooldown.until - time.monotonic()), WORTH_PAUSING)
        return max(delay, held + min(delay, _STEP_BACK))
