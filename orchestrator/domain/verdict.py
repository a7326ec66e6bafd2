"""judge(): THE retry table. The only place that says what is worth another attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Discarded, RetryLater
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy

# Kinds that share a budget: what was spent on one cause is not missing for another.
_BUDGETS = (
    frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, FailureKind.CONNECTION}),
    frozenset({FailureKind.RATE_LIMITED}),
    frozenset({FailureKind.GARBLED}),
    frozenset({FailureKind.BAD_ANSWER, FailureKind.DUBIOUS}),
    frozenset({FailureKind.CRASHED}),
    frozenset({FailureKind.PARSE}),
    frozenset({FailureKind.REJECTED, FailureKind.UNREADABLE}),
)
_BUDGET_OF = {kind: budget for budget in _BUDGETS for kind in budget}
_BLAMES_CONTENT = frozenset({FailureKind.REJECTED, FailureKind.DUBIOUS, FailureKind.GARBLED, FailureKind.BAD_ANSWER})
_TROUBLE = _BUDGET_OF[FailureKind.UNAVAILABLE]

ALONE = 5  # times in a row that an item is refused for overload while nobody else is; the last time with none in flight
_TROUBLED = 2  # times that trouble on the server's side strikes the same item: then the item may be its cause
_REFUSED = 3  # times that an item is refused for overload in company: then it may be refused for its own sake


def tries(kind: FailureKind, earlier: Iterable[FailureKind]) -> int:
    """Which try of its budget a failure of this kind is, counted from 1, after the item's earlier failures."""
    return 1 + sum(before in _BUDGET_OF[kind] for before in earlier)


def judge(
    failure: RequestFailed, *, attempt: int, policy: Policy, jitter: float, alone: int = 0
) -> RetryLater | Discarded:
    """Decide what follows try number `attempt` (from 1) of this failure's budget; `jitter` is drawn from [0, 1).

    `alone`: how many times in a row the item was refused while others were not: overload does not pick its victims.
    """
    if attempt >= _allowed(failure.kind, policy) or alone >= ALONE:
        return Discarded(failure)
    delay = policy.backoff.delay(attempt, jitter)
    return RetryLater(max(delay, min(failure.retry_after or 0.0, LONGEST)), failure)


def asked_in_parts(kind: FailureKind, attempt: int, policy: Policy) -> bool:
    """Whether a batch that failed as a whole is asked in parts: one item may be to blame, and takes no other with it.

    `attempt`: the try that this was for one of its items, at the most. Trouble on the server's side mostly passes; it
    is looked into where it strikes again, and before anything is discarded for it.
    """
    return kind in _BLAMES_CONTENT or (kind in _TROUBLE and attempt >= min(_TROUBLED, policy.max_attempts))


def asked_alone(failures: Sequence[FailureKind]) -> bool:
    """Whether an item that failed like this is asked alone: it may be to blame, and would spoil others' request."""
    return (
        not _BLAMES_CONTENT.isdisjoint(failures)
        or sum(kind in _TROUBLE for kind in failures) >= _TROUBLED
        or failures.count(FailureKind.RATE_LIMITED) >= _REFUSED
    )


def _allowed(kind: FailureKind, policy: Policy) -> int:
    match kind:
        case FailureKind.UNAVAILABLE | FailureKind.TIMEOUT | FailureKind.CONNECTION | FailureKind.GARBLED:
            return policy.max_attempts
        case FailureKind.RATE_LIMITED:
            return policy.rate_limit_attempts
        case FailureKind.BAD_ANSWER | FailureKind.DUBIOUS | FailureKind.CRASHED:
            return min(2, policy.max_attempts)  # mostly it is for good, and a crash costs a restart
        case FailureKind.PARSE:
            return policy.parse_attempts
        case FailureKind.REJECTED | FailureKind.UNREADABLE:
            return 1  # the same request would be refused again
