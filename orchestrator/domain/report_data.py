"""The content of the ledger from which a report is computed. Moments are seconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.costs import Receipt
    from orchestrator.domain.notification import NotificationResult
    from orchestrator.domain.readings import Reading
    from orchestrator.domain.run import Cause, RunState

FOUND_ASLEEP = "found asleep"  # `closed_by` of a window that was not ended by one of our processes


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as the ledger has it. `left_at`: when its last process released it.

    `asks`: what its rollout has asked; `routes`: the names by which it asks, each with those of its endpoints.

    `rate`: items per second, as its process measures it. `concurrency`: requests in flight, if the user has set it.
    """

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
    notified: Sequence[NotificationResult] = ()
    owes_notification: bool = False  # its hooks were not notified how it ended, and no process is doing so
    readings: Sequence[Reading] = ()
    causes: Sequence[Cause] = ()
    before: Before | None = None
    noted: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    rate: float | None = None
    concurrency: int | None = None
    asks: Sequence[AskTotal] = ()
    routes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    handed_over: str | None = None  # what was left to the fallback for its price, in words

    @property
    def ended_at(self) -> float | None:
        """The moment when its last process left it; None while it is executed, or if it never was."""
        if self.executing:
            return None
        last = self.readings[-1].at if self.readings else None
        return self.finished_at or self.left_at or last


@dataclass(frozen=True, slots=True)
class Before:
    """The latest earlier run of the same job that settled any items."""

    id: int
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class User:
    """A living process that uses an endpoint, and its run; `run` is None if the process only pauses the endpoint.

    Or, without a process, the user or job that keeps the endpoint awake (`kept_by`), until `expires_at` if it is set.
    """

    pid: int
    run: int | None
    job: str | None
    kept_by: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class AwakeWindow:
    """The latest awake window of an endpoint according to the ledger. `billed_to` is None if it is still open.

    `seen`, `said`: the state at the last look, in our terms and in the provider's own words.
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
    last_run: int | None = None  # the last run that used it
    billed_seconds: float | None = None  # what the provider bills for all servers together, if it says so
    billed_dollars: float | None = None

    @property
    def is_debt(self) -> bool:
        """Whether the endpoint must be paused, and no living process will do that."""
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
    """Slots of a schedule without a run: missed, since no daemon was running, or skipped, by the schedule's rules."""

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
    """The ledger's content for a period or one run. `receipts` reach back as far as its figures need."""

    since: float
    until: float
    runs: Sequence[Ran]
    receipts: Sequence[Receipt] = ()
    windows: Sequence[AwakeWindow] = ()
    waiting: Sequence[QueuedRun] = ()
    lapses: Sequence[Lapse] = ()
    broken: Sequence[Broken] = ()
    one_run: bool = False
