"""Plan: what a run would do now, without calling anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.engine.progress import Progress
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
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do. `counts`: the rows by what has to be done.

    `answered_by`: how many of the rows to ask other jobs have answered, by job, highest first. `parses_again`: `parse`
    has changed, so outputs are made again from the stored answers. `estimate`: of what asking takes. `hints`: for the
    user.
    """

    counts: Plan
    answered_by: Mapping[str, int]
    parses_again: bool
    estimate: Estimate
    hints: Sequence[str] = ()

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
    parse = await to_thread.run_sync(fingerprint_of, job.parse)
    parses_again = job_id is not None and await store.runs.parse_of(job_id) != parse
    elsewhere = Elsewhere(store, job_id, jobs)
    snapshot = Snapshot(job, identity, request.limit, reuse=others)
    found = await count_rows(snapshot, store, Progress(), elsewhere.look if jobs else None)
    hints = [*chain_hints(job), *choice_hints(job), *elsewhere.hints]
    estimate = await estimate_for(snapshot.load, job, identity, job_id, store)
    return Forecast(found, elsewhere.answered_by, parses_again, estimate, hints)
