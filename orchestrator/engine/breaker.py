"""breaker: stops a run in which going on would cost money and bring nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.errors import FailureKind, RequestFailed, RunFailed, RunStopped

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.progress import Progress
    from orchestrator.store.items import Settlement

ENOUGH_TO_JUDGE = 100  # settled items from which on the error rate says something


class Breaker:
    """Two levels: so many requests in a row that failed for one cause, with no success between; and the error rate."""

    def __init__(self, policy: Policy) -> None:
        self._limit = policy.breaker
        self._error_rate = policy.max_error_rate
        self._cause: tuple[FailureKind, int | None] | None = None
        self._requests = 0
        self._failure: RequestFailed | None = None
        self.keys: list[int] = []

    def note(self, settlements: list[Settlement]) -> None:
        """Count the settlements of one request."""
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

    def trip(self, progress: Progress) -> None:
        """Raise `BreakerTripped` for a streak, `RunStopped` for the rate, once the limit is reached."""
        if self._requests >= self._limit and self._failure is not None:
            raise BreakerTripped(self._failure, self.keys, self._requests)
        settled = progress.completed + progress.discarded
        if settled >= ENOUGH_TO_JUDGE and progress.discarded > self._error_rate * settled:
            raise RunStopped(
                f"{progress.discarded:,} of {settled:,} items were discarded, more than "
                f"policy.max_error_rate={self._error_rate:g} allows: look at `orchestrator status`; "
                "to go on, raise it and run again"
            )


class BreakerTripped(RunFailed):
    """Everything fails alike. `keys` are the items that were discarded for it and deserve to be given back."""

    def __init__(self, failure: RequestFailed, keys: list[int], requests: int) -> None:
        status = f" {failure.status}" if failure.status else ""
        super().__init__(
            f"{requests} requests in a row failed for the same cause ({failure.kind}{status}: {failure.message}); "
            "nothing of it was discarded: put it right and run again, or raise policy.breaker"
        )
        self.keys = keys
