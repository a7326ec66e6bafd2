"""Breaker: stop a run in which every request fails, before it costs more money.

The breaker takes an endpoint out of use if `policy.breaker` requests in a row fail for one cause with no success in
between. It holds such a streak back until it has been judged (a success, another cause, the end of the items, or some
seconds in which nothing else can be asked settle it), so that nothing committed is ever taken back; after `kill -9`,
held items are asked again.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.errors import FailureKind, RequestFailed, RunFailed

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.store.items import Settlement

MOST_HELD = 1000  # requests; the oldest ones of a longer streak are settled, so that memory stays bounded

_Cause = tuple[FailureKind, int | None]


class Breaker:
    """Holds back requests that failed in a row for the same cause, until it is known what is at fault.

    A success or a different cause shows that the items are at fault: they are released and settled. After
    `policy.breaker` requests in a row the endpoint is at fault: then nothing of the streak has been settled, so nothing
    has to be undone. Without `policy.breaker_on_rejected`, a rejected request is always its items' fault.
    """

    def __init__(self, policy: Policy) -> None:
        self._limit = policy.breaker
        self._counts_rejected = policy.breaker_on_rejected
        self._cause: _Cause | None = None
        self._requests = 0  # in the streak
        self._held: deque[list[Settlement]] = deque()
        self.held_at = 0.0  # when the latest one was, on the monotonic clock

    def judged(self, settlements: list[Settlement]) -> list[Settlement]:
        """Return what may be settled after a request ended like this. Raises `BreakerTripped` at a full streak."""
        if not self._held and all(isinstance(one.outcome, Completed) for one in settlements):
            return settlements
        failures = [one.outcome.failure for one in settlements if isinstance(one.outcome, Discarded)]
        if len(failures) < len(settlements):
            completed = any(isinstance(one.outcome, Completed) for one in settlements)
            return [*self._over(), *settlements] if completed else settlements
        causes = {(failure.kind, failure.status) for failure in failures}
        if len(causes) != 1 or (not self._counts_rejected and FailureKind.REJECTED in {kind for kind, _ in causes}):
            return [*self._over(), *settlements] if causes else []
        cause = causes.pop()
        released = self._over() if cause != self._cause else []
        self._cause = cause
        self._requests += 1
        self._held.append(settlements)
        self.held_at = time.monotonic()
        if self.tripped:
            raise BreakerTripped(failures[0], self._requests)
        return released if len(self._held) <= MOST_HELD else self._held.popleft()

    def _over(self) -> list[Settlement]:
        """Return what the ending streak has held. A tripped breaker keeps its streak: answers may still arrive."""
        return [] if self.tripped else self.release()

    def release(self) -> list[Settlement]:
        """Return everything that is held, to be settled, or requeued if the breaker tripped. Nothing is held after."""
        released = [settlement for request in self._held for settlement in request]
        self._cause, self._requests = None, 0
        self._held.clear()
        return released

    @property
    def tripped(self) -> bool:
        """Whether the streak is full, so that what is held must be requeued, not settled."""
        return self._requests >= self._limit

    @property
    def holds(self) -> int:
        """The number of items that are held back."""
        return sum(map(len, self._held))


class BreakerTripped(RunFailed):
    """Raised when too many requests in a row fail for the same cause."""

    def __init__(self, failure: RequestFailed, requests: int) -> None:
        status = f" {failure.status}" if failure.status else ""
        kept = "nothing of it" if requests <= MOST_HELD else f"none of the last {MOST_HELD:,}"
        super().__init__(
            f"{requests} requests in a row failed for the same cause ({failure.kind}{status}: {failure.message}); "
            f"{kept} was discarded: fix the cause and run again, or raise policy.breaker"
        )
