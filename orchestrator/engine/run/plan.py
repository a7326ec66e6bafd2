"""Plan: what a run would do now, without calling anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.engine.progress import Progress
from orchestrator.engine.run.asks_ahead import AskedElsewhere, AsksAhead
from orchestrator.engine.run.chained import chain_hints, chained
from orchestrator.engine.run.choices import choice_hints, choosing_as_before
from orchestrator.engine.run.estimate import estimate_for
from orchestrator.engine.run.files import check_files
from orchestrator.engine.run.ingest import plan as count_rows
from orchestrator.engine.run.reuse import Elsewhere
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.job import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.estimate import Estimate
    from orchestrator.domain.run import Plan
    from orchestrator.engine.run.ingest import Look
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.job import Job
    from orchestrator.store import Store
    from orchestrator.store.row_classes import NewItem


@dataclass(frozen=True, slots=True)
class AsksToMake:
    """What rollouts would ask: asks that the ledger has answered, and a lower bound of those to be made.

    What follows an ask without an answer is not known.
    """

    answered: int
    to_make_at_least: int

    def __str__(self) -> str:
        return f"asks: {self.answered:,} answered already, at least {self.to_make_at_least:,} to make"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do. `counts`: the rows by what has to be done.

    `answered_by`: how many of the rows to ask other jobs have answered, by job, highest first. `parses_again`: `parse`
    has changed, so outputs are made again from the stored answers. `estimate`: of what asking takes. `hints`: for the
    user. `asks`: None without a rollout.
    """

    counts: Plan
    answered_by: Mapping[str, int]
    parses_again: bool
    estimate: Estimate
    hints: Sequence[str] = ()
    asks: AsksToMake | None = None

    def __str__(self) -> str:
        return "; ".join([str(self.counts), *self.hints])


async def forecast(request: RunRequest, store: Store) -> Forecast:
    """Read the source and compare it with the ledger. Raises `UsageError` if a run could not deliver."""
    job = await choosing_as_before(await chained(request.job, store), store)
    await to_thread.run_sync(check_files, job, store.database.path, request.jobfile)
    others = await store.reuse.named(request.reuse, job.name)
    identity = await to_thread.run_sync(job.identity)
    alike = await store.reuse.asked_alike(job.name, identity)
    jobs = {number: name for number, name in alike.items() if number not in others}
    job_id = await store.runs.job_id(job.name)
    unnamed = job.rollout is not None and job_id is None and not others
    asking = await store.reuse.asking_alike(job.name, identity) if unnamed else {}
    parse = await to_thread.run_sync(fingerprint_of, job.parse)
    parses_again = job_id is not None and await store.runs.parse_of(job_id) != parse
    elsewhere, asked = Elsewhere(store, job_id, jobs), AskedElsewhere(job, identity, asking, store)
    snapshot = Snapshot(job, identity, request.limit, reuse=others)
    seen = job_id is not None or others
    ahead = AsksAhead(job, identity, job_id, others, store) if job.rollout is not None and seen else None
    looks = [one.look for one, needed in ((elsewhere, jobs), (asked, asking)) if needed]
    found = await count_rows(snapshot, store, Progress(), _look(looks, ahead))
    hints = [*chain_hints(job), *choice_hints(job), *elsewhere.hints, *asked.hints]
    estimate = await estimate_for(snapshot.load, job, identity, job_id, store)
    return Forecast(found, elsewhere.answered_by, parses_again, estimate, hints, _asks(job, ahead, found))


def _look(looks: Sequence[Look], ahead: AsksAhead | None) -> Look | None:
    """Return what looks at each chunk; None if nobody needs to."""
    every = looks if ahead is None else [*looks, ahead.look]

    async def look(rows: list[NewItem]) -> None:
        for one in every:
            await one(rows)

    return look if every else None


def _asks(job: Job, ahead: AsksAhead | None, found: Plan) -> AsksToMake | None:
    if job.rollout is None:
        return None
    return AsksToMake(0, found.to_ask) if ahead is None else AsksToMake(ahead.answered, ahead.missing)
