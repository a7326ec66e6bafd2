"""One execution of a job: its states, its numbers, and what it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.placeholders import filled, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunState(StrEnum):
    """Where a run stands. Open, failed and stopped ones go on when the job is run again."""

    INGESTING = "ingesting"  # its snapshot of the source is not complete
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # the job or its source changed before it was finished

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self in {RunState.FINISHED, RunState.CANCELLED, RunState.SUPERSEDED}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do, by item, compared with what the ledger knows of the job.

    `left_out`: rows that earlier runs of an incremental job have delivered; they are no part of the run.
    """

    new: int = 0
    edited: int = 0
    reused: int = 0
    retry: int = 0
    discarded: int = 0
    left_out: int = 0

    def __add__(self, other: Plan) -> Plan:
        return Plan(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    @property
    def total(self) -> int:
        """Rows in the source."""
        return self.new + self.edited + self.reused + self.retry + self.discarded + self.left_out

    @property
    def to_ask(self) -> int:
        """Items that will be asked."""
        return self.new + self.edited + self.retry

    def __str__(self) -> str:
        text = f"{self.new:,} new, {self.edited:,} edited, {self.reused:,} reused, {self.retry:,} to retry"
        text += f", {self.discarded:,} discarded earlier" if self.discarded else ""
        return text + (f", {self.left_out:,} left out" if self.left_out else "")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of a run stand where. `available` ones include those leased by nobody and not cancelled."""

    total: int = 0
    completed: int = 0
    discarded: int = 0
    leased: int = 0

    @property
    def settled(self) -> int:
        """Items that need nothing more."""
        return self.completed + self.discarded

    @property
    def unfinished(self) -> int:
        """Items that still have to be settled."""
        return self.total - self.settled


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the answers of a run's items took, reused ones included; None where no server said so of any."""

    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a run is made from, as the ledger keeps it. Never holds a secret.

    `fingerprint` covers everything in the job that shapes the outcome; `input_sha256` the source, where it can say.
    `about` is what reports and later commands need: job file, overrides, output path, kept columns, identity, versions.
    """

    job: str
    fingerprint: str
    input_sha256: str | None
    about: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands in the ledger. Moments are seconds since 1970 UTC."""

    id: int
    job_id: int
    job: str
    state: RunState
    spec: Spec
    plan: Plan
    total: int
    holder: int | None
    rate: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
    held: bool = False
    due_at: float | None = None  # it is in the queue, and may be executed from then on
    tries: int = 0  # claims without progress since
    why: str | None = None  # it was requeued into the queue, or its process waits
    delivered_at: float | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """What placeholders in the path of its output stand for."""
        return names_of(self.id, self.job, self.created_at)

    @property
    def output(self) -> str | None:
        """Where its answers go; None where it has none to deliver, as nothing was new to an incremental job."""
        path = self.spec.about.get("output")
        nothing_new = self.spec.about.get("incremental") and self.state is RunState.FINISHED and not self.total
        return None if path is None or nothing_new else filled(str(path), self.names)

    @property
    def waits(self) -> bool:
        """Whether it is in the queue and nobody executes it."""
        return self.due_at is not None and self.holder is None and not self.state.ended


@dataclass(frozen=True, slots=True)
class Cause:
    """Discarded items of a run that failed alike, with one of them as a sample."""

    kind: str
    status: int | None
    message: str
    items: int
    sample: str
