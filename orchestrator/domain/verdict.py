"""The retry rules: the only place that decides whether a failed attempt is repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Discarded, RetryLater
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy

# Each set of kinds shares one budget of attempts, so that failures of one cause do not use up the attempts of another.
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

ALONE = 5  # refusals for overload in a row while no other item is refused, the last with no other request in flight
_TROUBLED = 2  # problems on the server's side with the same item, after which the item may be the cause
_REFUSED = 3  # refusals for overload of an item among others, after which the item itself may be the cause


def tries(kind: FailureKind, earlier: Iterable[FailureKind]) -> int:
    """Return the number of the try within the budget of this kind, from 1, given the item's earlier failures."""
    return 1 + sum(before in _BUDGET_OF[kind] for before in earlier)


def judge(
    failure: RequestFailed, *, attempt: int, policy: Policy, jitter: float, alone: int = 0
) -> RetryLater | Discarded:
    """Decide what follows try number `attempt` (from 1) of this failure's budget; `jitter` is drawn from [0, 1).

    `alone`: how many times in a row the item was refused while others were not; real overload would refuse others too.
    """
    if attempt >= _allowed(failure.kind, policy) or alone >= ALONE:
        return Discarded(failure)
    delay = policy.backoff.delay(attempt, jitter)
    return RetryLater(max(delay, min(failure.retry_after or 0.0, LONGEST)), failure)


def asked_in_parts(kind: FailureKind, attempt: int, policy: Policy) -> bool:
    """Whether a batch that failed as a whole is asked in parts, in case a single item is to blame.

    `attempt`: the highest try number among its items. Problems on the server's side usually pass, so the batch is split
    only if they occur again, and before any item is discarded because of them.
    """
    return kind in _BLAMES_CONTENT or (kind in _TROUBLE and attempt >= min(_TROUBLED, policy.max_attempts))


def whole_repeats(passed: int, failed: int) -> int:
    """Return how many times a batch with a garbled answer is asked again as a whole, before it is asked in parts.

    `passed` and `failed`: earlier such repeats. If they pass, garbage is transient; if not, items are at fault.
    """
    if failed > passed + 1:
        return 0
    return 2 if passed > 2 * failed else 1


def asked_alone(failures: Sequence[FailureKind]) -> bool:
    """Whether an item with these failures is asked alone, since it may be to blame and would make other items fail."""
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
            return min(2, policy.max_attempts)  # such failures are usually permanent, and a crash costs a restart
        case FailureKind.PARSE:
            return policy.parse_attempts
        case FailureKind.REJECTED | FailureKind.UNREADABLE | FailureKind.ROLLOUT:
            return 1  # the same would happen again
