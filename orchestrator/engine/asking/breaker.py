"""breaker: stops a run in which going on would cost money and bring nothing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.errors import FailureKind, RequestFailed, RunFailed

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.store.items import Settlement

MOST_HELD = 1000  # requests; of a longer streak the first ones are settled, so that memory stays bounded

_Cause = tuple[FailureKind, int | None]


class Breaker:
    """Holds back requests that failed in a row for one cause, until it is known whose fault that is.

    A success, or another cause, says that it is the items': they are released to be settled. `policy.breaker` requests
    in a row say that it is the endpoint: then nothing of the streak has been settled, and nothing has to be undone.
    """

    def __init__(self, policy: Policy) -> None:
        self._limit = policy.breaker
        self._cause: _Cause | None = None
        self._requests = 0  # in the streak
        self._held: deque[list[Settlement]] = deque()

    def judged(self, settlements: list[Settlement]) -> list[Settlement]:
        """What may be settled now that a request has ended like this. `BreakerTripped` at the end of a full streak."""
        failures = [one.outcome.failure for one in settlements if isinstance(one.outcome, Discarded)]
        if len(failures) < len(settlements):
            completed = any(isinstance(one.outcome, Completed) for one in settlements)
            return [*self._over(), *settlements] if completed else settlements
        causes = {(failure.kind, failure.status) for failure in failures}
        if len(causes) != 1:
            return [*self._over(), *settlements] if causes else []
        cause = causes.pop()
        released = self._over() if cause != self._cause else []
        self._cause = cause
        self._requests += 1
        self._held.append(settlements)
        if self.tripped:
            raise BreakerTripped(failures[0], self._requests)
        return released if len(self._held) <= MOST_HELD else self._held.popleft()

    def _over(self) -> list[Settlement]:
        """What a streak has held that ends here. One that has tripped does not end: answers may still come in."""
        return [] if self.tripped else self.release()

    def release(self) -> list[Settlement]:
        """What is held: to be settled, or to be given back where it has tripped. It holds nothing after that."""
        released = [settlement for request in self._held for settlement in request]
        self._cause, self._requests = None, 0
        self._held.clear()
        return released

    @property
    def tripped(self) -> bool:
        """Whether the streak is full: what is held is to be given back, not settled."""
        return self._requests >= self._limit

    @property
    def holds(self) -> int:
        """Items that are held back."""
        return sum(map(len, self._held))


class BreakerTripped(RunFailed):
    """Everything fails alike."""

    def __init__(self, failure: RequestFailed, requests: int) -> None:
        status = f" {failure.status}" if failure.status else ""
        kept = "nothing of it" if requests <= MOST_HELD else f"none of the last {MOST_HELD:,}"
        super().__init__(
            f"{requests} requests in a row failed for the same cause ({failure.kind}{status}: {failure.message}); "
            f"{kept} was discarded: put it right and run again, or raise policy.breaker"
        )
