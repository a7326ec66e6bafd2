"""judge(): THE retry table. The only place that says what is worth another attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Discarded, RetryLater
from orchestrator.domain.errors import FailureKind

if TYPE_CHECKING:
    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy

_TRANSIENT = frozenset(
    {
        FailureKind.RATE_LIMITED,
        FailureKind.UNAVAILABLE,
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
    }
)
_TWICE = frozenset({FailureKind.BAD_ANSWER, FailureKind.CRASHED})  # mostly for good, and a crash costs a restart


def judge(failure: RequestFailed, *, attempt: int, policy: Policy, jitter: float) -> RetryLater | Discarded:
    """Decide what follows failed attempt number `attempt` (from 1); `jitter` is drawn from [0, 1)."""
    if failure.kind in _TRANSIENT:
        allowed = policy.max_attempts
    elif failure.kind is FailureKind.PARSE:
        allowed = policy.parse_attempts
    elif failure.kind in _TWICE:
        allowed = min(2, policy.max_attempts)
    else:
        allowed = 1  # the same request would be refused again
    if attempt >= allowed:
        return Discarded(failure)
    delay = policy.backoff.delay(attempt, jitter)
    return RetryLater(max(delay, failure.retry_after or 0.0), failure)
