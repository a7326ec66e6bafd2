"""The queue: what is submitted, in which order runs are taken, and how one that stopped goes on."""

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
    WindowOver,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 3600.0  # seconds after which a run is taken in its turn, although another one's endpoint is awake
FREE_TRIES = 3  # claims without progress that are repeated at once
MOST_TRIES = 20  # and after which a run is given up
LOADS_FOR = 10.0  # seconds for which a claimed run that has not begun is in the way of others
_SOON, _LATE = 30.0, 1800.0  # seconds: the first and the longest time for which an endpoint is left alone
_CREDIT = 3600.0  # seconds after which somebody may have paid


@dataclass(frozen=True, slots=True)
class Submission:
    """A run that is wanted. Moments are seconds since 1970 UTC.

    `about`: what a process needs to execute it (`jobfile`, `overrides`, `limit`); never a secret.
    `endpoints`: names of all that it may use. `after`: runs that it waits for; with True for their end, however they
    end, with False for their success. `key`: submitted twice with one key, it is one run; `key_hash` says whether it
    was the same submission.
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
    """A queued run that was claimed to be executed, and the process that claimed it."""

    run_id: int
    process_id: int


@dataclass(frozen=True, slots=True)
class Queued:
    """A run in the queue as a person sees it. `waits_for`: runs that have to end first. `why`: it was requeued."""

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
    """The run stays in the queue. `fruitless`: it got nowhere, and it counts how often that happens."""

    at: float
    why: str
    fruitless: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The run leaves the queue; somebody has to do something before it can go on."""

    why: str


def after_stop(error: BaseException, *, now: float, tries: int) -> Again | Over:
    """What becomes of a queued run that has stopped. `tries`: claims without progress so far, this one included."""
    why, at, fruitless = str(error) or type(error).__name__, now, False
    match error:
        case WindowOver():
            at = error.opens_at
        case BudgetSpent() if error.until is not None:
            at = error.until
        case Snoozed():
            at, fruitless = error.until, error.fruitless
            if fruitless and tries >= FREE_TRIES:  # whatever process it was that woke its endpoint for nothing
                at = max(at, now + left_alone(tries))
        case OutOfCredit():
            at = now + _CREDIT
        case NotAwake() | EndpointSilent():
            at, fruitless = now + left_alone(tries), True
        case LedgerError() | Busy():
            at, fruitless = now + _SOON, True
        case AskedToStop() | Held() | Fenced() | GaveWay():
            pass
        case Exception():
            return Over(why)
        case _:  # cut short: somebody else may go on at once
            why = "its process was asked to stop"
    return Again(at, why, fruitless)


def next_try(tries: int) -> float | None:
    """Seconds after which a run whose process died `tries` times without progress is claimed again; None: never."""
    if tries >= MOST_TRIES:
        return None
    return 0.0 if tries <= FREE_TRIES else left_alone(tries - FREE_TRIES)


def left_alone(tries: int) -> float:
    """Seconds for which something that failed so many times in a row is not tried again."""
    return float(min(_SOON * 2 ** (tries - 1), _LATE))
