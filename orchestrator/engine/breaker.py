"""breaker: stops a run in which going on would cost money and bring nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.errors import FailureKind, RequestFailed, RunFailed

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.store.items import Settlement


class Breaker:
    """So many requests in a row that failed for one cause, with no success between."""

    def __init__(self, policy: Policy) -> None:
        self._limit = policy.breaker
        self._cause: tuple[FailureKind, int | None] | None = None
        self._requests = 0
        self._failure: RequestFailed | None = None
        self.keys: list[int] = []

    def note(self, settlements: list[Settlement]) -> None:
        """Count the settlements of one request."""
        if not settlements:
            return
        failures = [s.outcome.failure for s in settlements if isinstance(s.outcome, Discarded)]
        if len(failures) < len(settlements):
            if any(isinstance(settlement.outcome, Completed) for settlement in settlements):
                self._cause, self._requests, self.keys = None, 0, []
            return
        causes = {(failure.kind, failure.status) for failure in failures}
        if len(causes) > 1:
            self._cause, self._requests, self.keys = None, 0, []
            return
        cause = causes.pop()
        if cause != self._cause:
            self._cause, self._requests, self.keys = cause, 0, []
        self._requests += 1
        self._failure = failures[0]
        self.keys += [settlement.item.key for settlement in settlements]

    def trip(self) -> None:
        """Raise `BreakerTripped` once the limit is reached. Its keys include those that are noted until it is used."""
        if self._requests >= self._limit and self._failure is not None:
            raise BreakerTripped(self._failure, self.keys, self._requests)


class BreakerTripped(RunFailed):
    """Everything fails alike. `keys` are the items that were discarded for it and deserve to be given back."""

    def __init__(self, failure: RequestFailed, keys: list[int], requests: int) -> None:
        status = f" {failure.status}" if failure.status else ""
        super().__init__(
            f"{requests} requests in a row failed for the same cause ({failure.kind}{status}: {failure.message}); "
            "nothing of it was discarded: put it right and run again, or raise policy.breaker"
        )
        self.keys = keys
