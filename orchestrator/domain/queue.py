"""The queue of runs: submissions, claims, and what happens to a run that has stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.errors import (
    AskedToStop,
    BudgetSpent,
    Busy,
    EndpointSilent,
    Fenced,
    GaveWay,
    Held,
    LedgerError,
    NotAwake,
    OutOfCredit,
    Snoozed,
    StorageSilent,
    WindowOver,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TURN_AFTER = 3600.0  # seconds after which a waiting run takes its turn, although another run's endpoint is awake
FREE_TRIES = 3  # claims without progress that are repeated at once
MOST_TRIES = 20  # claims without progress after which the run is given up
LOADS_FOR = 10.0  # seconds for which a claimed run that has not begun blocks others
_SOON, _LATE = 30.0, 1800.0  # seconds: the first and the longest wait before the next try
_CREDIT = 3600.0  # seconds until the account is tried again


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to run a job. Moments are seconds since 1970 UTC.

    `about`: what a process needs to execute the run (`jobfile`, `overrides`, `limit`); never a secret.
    `endpoints`: the names of all that it may use. `after`: the runs that it waits for, each with True for any end or
    False for success. `key`: two submissions with the same key are one run; `key_hash` shows whether they were the same
    submission.
    """

    job: str
    about: Mapping[str, object]
    endpoints: Sequence[str]
    due_at: float
    priority: int = 0
    deadline: float | None = None
    key: str | None = None
    key_hash: str | None = None
    after: Sequence[tuple[int, bool]] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A queued run that was claimed for execution, and the process that claimed it."""

    run_id: int
    process_id: int


@dataclass(frozen=True, slots=True)
class Queued:
    """A queued run, as shown to the user. `waits_for`: runs that must end first. `why`: the reason for requeueing."""

    id: int
    job: str
    state: str
    due_at: float
    priority: int
    deadline: float | None
    held: bool
    executing: bool
    endpoints: Sequence[str]
    submitted_at: float
    tries: int
    why: str | None
    waits_for: Sequence[int] = field(default=())


@dataclass(frozen=True, slots=True)
class Again:
    """The run stays in the queue until `at`. `fruitless`: it made no progress, which counts as a try."""

    at: float
    why: str
    fruitless: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The run leaves the queue; the user has to fix something before it can continue."""

    why: str


def after_stop(error: BaseException, *, now: float, tries: int) -> Again | Over:
    """Decide what happens to a queued run that has stopped. `tries`: claims without progress, including this one."""
    why, at, fruitless = str(error) or type(error).__name__, now, False
    match error:
        case WindowOver():
            at = error.opens_at
        case BudgetSpent() if error.until is not None:
            at = error.until
        case Snoozed():
            at, fruitless = error.until, error.fruitless
            if fruitless and tries >= FREE_TRIES:  # tries are counted over all processes that claimed the run
                at = max(at, now + left_alone(tries))
        case OutOfCredit():
            at = now + _CREDIT
        case NotAwake() | EndpointSilent() | StorageSilent():
            at, fruitless = now + left_alone(tries), True
        case LedgerError() | Busy():
            at, fruitless = now + _SOON, True
        case AskedToStop() | Held() | Fenced() | GaveWay():
            pass
        case Exception():
            return Over(why)
        case _:  # cancelled: another process may continue at once
            why = "its process was asked to stop"
    return Again(at, why, fruitless)


def next_try(tries: int) -> float | None:
    """Return the seconds until a run whose process died `tries` times without progress is claimed again, if ever."""
    if tries >= MOST_TRIES:
        return None
    return 0.0 if tries <= FREE_TRIES else left_alone(tries - FREE_TRIES)


def left_alone(tries: int) -> float:
    """Return the seconds to wait before the next try after `tries` failures in a row."""
    return float(min(_SOON * 2 ** (tries - 1), _LATE))
