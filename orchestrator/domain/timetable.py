"""Schedules as stored in the ledger, and what was decided about their slots."""

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
Waits = tuple[tuple[str, bool], ...]  # jobs whose latest run to wait for; True: for any end, False: for success


@dataclass(frozen=True, slots=True)
class Declared:
    """What a job file declares about its job, as far as the schedule needs it.

    `about`: what a process needs to execute a run of it (`jobfile`, `folder`, `overrides`, `limit`). `endpoints`: the
    names of all that it may use. `deadline`: when the answers of a run are needed, in the form of `Policy.deadline`.
    `after`: the jobs that it waits for.
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
        """The full path of the job file."""
        return str(self.about["jobfile"])


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule in the ledger. Moments are seconds since 1970 UTC.

    `next_slot` is None if it never fires again; `last_slot` is the last slot that was decided.
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
        """Return the schedule as a `Cron`. Raises `ValueError` if it is invalid. May read time zone files."""
        if self.deadline is not None:
            deadline_at(self.deadline, now)
        return Cron(self.expression, self.tz, self.overlap, self.catch_up, self.catch_up_window, self.jitter)


@dataclass(frozen=True, slots=True)
class Fired:
    """What was decided about one slot: `run_id` is the run queued for it, `why` is the reason if it was skipped."""

    job: str
    slot: float
    decision: Decision
    run_id: int | None = None
    why: str | None = None


def in_order(due: Iterable[Schedule]) -> list[Schedule]:
    """Return the schedules in order, but each after those it waits for: its run waits for theirs of the same slot."""
    by_job = {schedule.job: schedule for schedule in due}
    placed: dict[str, Schedule] = {}
    begun: set[str] = set()

    def place(schedule: Schedule) -> None:
        begun.add(schedule.job)
        for name, _ in schedule.after:
            if name in by_job and name not in begun:
                place(by_job[name])
        placed[schedule.job] = schedule

    for schedule in by_job.values():
        if schedule.job not in begun:
            place(schedule)
    return list(placed.values())


def slot_lines(fired: Sequence[Fired]) -> list[str]:
    """Return log lines for what was decided: one for each run and skipped slot, one for all missed slots of a job."""
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
    """A job file, or a folder of them, that could not be used when it was last read."""

    path: str
    error: str
    at: float
