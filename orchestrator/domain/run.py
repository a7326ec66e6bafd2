"""A run, one execution of a job: its states, its counts and its spec."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import count
from orchestrator.domain.placeholders import filled, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunState(StrEnum):
    """The state of a run. Open, failed and stopped runs continue when the job is run again."""

    INGESTING = "ingesting"  # its snapshot of the source is not complete
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # the job or its source changed before it was finished

    @property
    def ended(self) -> bool:
        """Whether the run has ended and running its job does not continue it."""
        return self in {RunState.FINISHED, RunState.CANCELLED, RunState.SUPERSEDED}


@dataclass(frozen=True, slots=True)
class Plan:
    """The items of a run, counted by what has to be done, given what the ledger already has for the job.

    `left_out`: rows that earlier runs of an incremental job have delivered; they are not part of the run.
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
        """The number of rows in the source."""
        return self.new + self.edited + self.reused + self.retry + self.discarded + self.left_out

    @property
    def to_ask(self) -> int:
        """The number of items that will be asked."""
        return self.new + self.edited + self.retry

    def __str__(self) -> str:
        text = f"{self.new:,} new, {self.edited:,} edited, {self.reused:,} reused, {self.retry:,} to retry"
        text += f", {self.discarded:,} discarded earlier" if self.discarded else ""
        return text + (f", {self.left_out:,} left out" if self.left_out else "")


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of items of a run by state."""

    total: int = 0
    completed: int = 0
    discarded: int = 0
    leased: int = 0

    @property
    def settled(self) -> int:
        """The number of items that are done."""
        return self.completed + self.discarded

    @property
    def unfinished(self) -> int:
        """The number of items that still have to be settled."""
        return self.total - self.settled

    def __str__(self) -> str:
        parts = [f"{self.completed:,} completed", f"{self.discarded:,} discarded"]
        if self.unfinished:  # leased items are not shown apart: a process leases far more than it asks at once
            parts.append(f"{self.unfinished:,} to do")
        return f"{count(self.total, 'item')}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens used for the answers of a run, including reused answers; None if no server reported any.

    If rollouts of the run have asked something, those of these asks, whatever becomes of their items.
    """

    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a run was created from, as stored in the ledger. Never contains a secret.

    `fingerprint` covers everything in the job that affects the outcome; `input_sha256` covers the source, if it has a
    hash. `about` is what reports and later commands need: job file, overrides, output path, kept columns, identity,
    versions.
    """

    job: str
    fingerprint: str
    input_sha256: str | None
    about: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as stored in the ledger. Moments are seconds since 1970 UTC."""

    id: int
    job_id: int
    job: str
    state: RunState
    spec: Spec = field(repr=False)
    plan: Plan
    total: int
    holder: int | None
    rate: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
    held: bool = False
    due_at: float | None = None  # if it is in the queue: the moment from which it may be executed
    tries: int = 0  # claims without progress
    why: str | None = None  # why it was requeued, or what its process waits for
    delivered_at: float | None = None
    deadline: float | None = None  # if it was submitted with one, or by a schedule: when its answers are wanted

    @property
    def names(self) -> Mapping[str, str]:
        """The values of placeholders in its output path."""
        return names_of(self.id, self.job, self.created_at)

    @property
    def output(self) -> str | None:
        """The output path; None if there is none, or if nothing was new for an incremental job."""
        path = self.spec.about.get("output")
        nothing_new = self.spec.about.get("incremental") and self.state is RunState.FINISHED and not self.total
        return None if path is None or nothing_new else filled(str(path), self.names)

    @property
    def is_read(self) -> bool:
        """Whether its snapshot of the source is complete, so that its items are known."""
        return self.state is RunState.FINISHED or (self.total > 0 and self.state is not RunState.INGESTING)

    @property
    def is_over(self) -> bool:
        """Whether it has ended and no process has anything left to do for it."""
        return self.state.ended and self.holder is None and self.due_at is None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue and no process executes it."""
        return self.due_at is not None and self.holder is None and not self.state.ended


@dataclass(frozen=True, slots=True)
class Cause:
    """Discarded items of a run that failed in the same way, with one of them as a sample."""

    kind: str
    status: int | None
    message: str
    items: int
    sample: str
