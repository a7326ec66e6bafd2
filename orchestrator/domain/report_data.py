"""What the ledger says of a period, or of one run: what a report is made of. Moments are seconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.costs import Receipt
    from orchestrator.domain.notification import NotificationResult
    from orchestrator.domain.readings import Reading
    from orchestrator.domain.run import Cause, RunState

FOUND_ASLEEP = "found asleep"  # `closed_by` of a window that no process of ours ended


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as the ledger has it. Moments are seconds since 1970 UTC. `left_at`: no process works on it any more."""

    id: int
    job: str
    state: RunState
    created_at: float
    started_at: float | None = None
    left_at: float | None = None
    finished_at: float | None = None
    due_at: float | None = None
    deadline: float | None = None
    error: str | None = None
    why: str | None = None
    executing: bool = False
    held: bool = False
    jobfile: str | None = None
    output: str | None = None
    total: int = 0
    completed: int = 0
    discarded: int = 0
    told: Sequence[NotificationResult] = ()
    owes_news: bool = False  # its hooks were not told how it ended, and no process is about to
    readings: Sequence[Reading] = ()
    causes: Sequence[Cause] = ()
    before: Before | None = None
    noted: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def ended_at(self) -> float | None:
        """When the last process was done with it; None while one works on it, or none ever has."""
        if self.executing:
            return None
        last = self.readings[-1].at if self.readings else None
        return self.finished_at or self.left_at or last


@dataclass(frozen=True, slots=True)
class Before:
    """The run of the same job before this one, that settled anything."""

    id: int
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class User:
    """A living process that uses an endpoint, and for which run: none where it only pauses it.

    Or who keeps it awake without a process, a person or a job; `expires_at` is when that ends by itself.
    """

    pid: int
    run: int | None
    job: str | None
    kept_by: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class AwakeWindow:
    """The latest time that an endpoint was awake, by the ledger; `billed_to` is None where it still is.

    `seen`, `said`: what the last look showed, in our words and in the provider's own.
    """

    endpoint: str
    owed: bool
    price_per_hour: float | None
    billed_from: float
    billed_to: float | None
    closed_by: str | None
    looked_at: float
    seen: str | None
    said: str | None
    users: Sequence[User] = ()
    last_run: int | None = None  # that used it

    @property
    def is_debt(self) -> bool:
        """It is to be paused, and nobody alive will do it by himself."""
        return self.billed_to is None and self.owed and not self.users


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run in the queue."""

    run: int
    job: str
    due_at: float
    deadline: float | None
    why: str | None
    waits_for: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Lapse:
    """Slots of a schedule at which no run was begun: missed, since nobody was there, or skipped, as its rules say."""

    job: str
    outcome: str
    slots: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Broken:
    """A job file that cannot be loaded."""

    path: str
    error: str
    at: float


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the ledger says of a period, or of one run. `receipts` reach back as far as any of its figures needs."""

    since: float
    until: float
    runs: Sequence[Ran]
    receipts: Sequence[Receipt] = ()
    windows: Sequence[AwakeWindow] = ()
    waiting: Sequence[QueuedRun] = ()
    lapses: Sequence[Lapse] = ()
    broken: Sequence[Broken] = ()
    one_run: bool = False
