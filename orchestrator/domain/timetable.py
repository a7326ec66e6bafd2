"""A schedule as the ledger keeps it: whose it is, what it says, where it stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.moment import deadline_at
from orchestrator.domain.schedule import CatchUp, Cron, Decision, Overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SaidBy = Literal["file", "command"]
Waits = tuple[tuple[str, bool], ...]  # jobs whose latest run is waited for; True: for its end, however it ends


@dataclass(frozen=True, slots=True)
class Declared:
    """What a job file says of its job, as far as its schedule needs to know.

    `about`: what a process needs to execute a run of it (`jobfile`, `folder`, `overrides`, `limit`). `endpoints`: names
    of all that it may use. `deadline`: when the answers of a run are wanted, as `Policy.deadline` says it. `after`: the
    jobs that it waits for.
    """

    job: str
    about: Mapping[str, object]
    endpoints: Sequence[str]
    cron: Cron
    priority: int = 0
    deadline: str | None = None
    after: Waits = ()

    @property
    def jobfile(self) -> str:
        """The file, with its whole path."""
        return str(self.about["jobfile"])


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row. Moments are seconds since 1970 UTC.

    `next_slot` is None where it never fires again; `last_slot` is the last one that was decided about.
    """

    id: int
    job: str
    jobfile: str
    about: Mapping[str, object]
    endpoints: Sequence[str]
    priority: int
    deadline: str | None
    after: Waits
    source: SaidBy
    expression: str
    tz: str
    overlap: Overlap
    catch_up: CatchUp
    catch_up_window: float
    jitter: float
    paused: bool
    next_slot: float | None
    last_slot: float | None
    missed: int
    gone: bool
    revision: int

    def meant(self, now: float) -> Cron:
        """What it means. `ValueError` where this process cannot make sense of it; may read the zones' files."""
        if self.deadline is not None:
            deadline_at(self.deadline, now)
        return Cron(self.expression, self.tz, self.overlap, self.catch_up, self.catch_up_window, self.jitter)


@dataclass(frozen=True, slots=True)
class Fired:
    """What was decided about one slot; `run_id` of the run that was queued for it, `why` it was skipped."""

    job: str
    slot: float
    decision: Decision
    run_id: int | None = None
    why: str | None = None


def in_order(due: Iterable[Schedule]) -> list[Schedule]:
    """In the same order, but whatever others wait for before these: a run waits for the one of the same slot."""
    by_job = {one.job: one for one in due}
    placed: dict[str, Schedule] = {}
    begun: set[str] = set()

    def place(one: Schedule) -> None:
        begun.add(one.job)
        for name, _ in one.after:
            if name in by_job and name not in begun:
                place(by_job[name])
        placed[one.job] = one

    for one in by_job.values():
        if one.job not in begun:
            place(one)
    return list(placed.values())


def told(fired: Sequence[Fired]) -> list[str]:
    """What was decided, in lines for a log: one for each run and skipped slot, one for all that a job missed."""
    lines = []
    for one in fired:
        slot = f"{datetime.fromtimestamp(one.slot, UTC):%Y-%m-%d %H:%M}Z"
        if one.decision is Decision.FIRED:
            lines.append(f"slot {slot} of job {one.job} is queued as run {one.run_id}")
        elif one.decision is Decision.SKIPPED:
            lines.append(f"slot {slot} of job {one.job} is skipped: {one.why}")
    missed = Counter(one.job for one in fired if one.decision is Decision.MISSED)
    return lines + [f"job {job} has missed {count:,} slots" for job, count in missed.items()]


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A job file, or a folder of them, that could not be used when it was last looked at."""

    path: str
    error: str
    at: float
