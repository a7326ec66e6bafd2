"""Jobs that read the results of another job: which of its runs, and how the source gets them from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from anyio import from_thread

from orchestrator.domain.errors import UsageError
from orchestrator.domain.run import RunState
from orchestrator.engine.results import results_in
from orchestrator.ports import ReadsResults

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from orchestrator.domain.item import ItemResult
    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.store import Store
    from orchestrator.store.views import ItemView


async def chained(job: Job, store: Store) -> Job:
    """Return the job with a source that can read its rows from the ledger, if they are another job's results.

    Raises `UsageError` if that job has no finished run, or if it reads the results of this one.
    """
    source = job.source
    if not isinstance(source, ReadsResults):
        return job
    runs = await store.finished_runs.of(source.job)
    latest = await store.runs.latest(source.job)
    if not runs:
        raise UsageError(_none_finished(source.job, latest))
    await _refuse_circle(job.name, runs, store)
    later = latest if latest is not None and latest.id > runs[-1].id and not latest.state.ended else None
    return replace(job, source=source.bound(LedgerResults(store, runs, later)))


def chain_hints(job: Job) -> list[str]:
    """Return a line for the user on which results the job reads; empty if it reads none."""
    return [f"the rows are the {job.source.describe()}"] if isinstance(job.source, ReadsResults) else []


@dataclass(frozen=True, slots=True)
class LedgerResults:
    """The results in these finished runs of one job. `later`: a run of the job that has not finished.

    For worker threads of the event loop: `call` runs a coroutine function there.
    """

    store: Store
    runs: Sequence[Run]
    later: Run | None = None
    call: Callable[..., Any] = from_thread.run

    def pages(self) -> Generator[Sequence[ItemResult]]:
        """Yield the items page by page. Raises `UsageError` as soon as a run is retried or deleted meanwhile."""
        for run in self.runs:
            after = -1
            while True:
                page = self.call(self.store.views.page, run.id, after)
                if self.call(self.store.finished_runs.finished_at, run.id) != run.finished_at:
                    raise UsageError(f"run {run.id} of {run.job} was changed or deleted while it was read: run again")
                if not page:
                    break
                yield results_in(self._latest(run, page))
                after = page[-1].position

    def _latest(self, run: Run, page: Sequence[ItemView]) -> Sequence[ItemView]:
        """Return the items without those that a later run has again, because their rows were edited."""
        if run is self.runs[-1]:
            return page
        ids = [item.id for item in page]
        edited = self.call(self.store.finished_runs.in_later_run, run, self.runs[-1].id, ids)
        return [item for item in page if item.id not in edited]

    def version(self) -> str:
        """Return a text that changes when the results do."""
        version: str = self.call(self.store.finished_runs.version, [run.id for run in self.runs])
        return version

    def describe(self) -> str:
        """Return which runs are read, and whether there is a later one that has not finished."""
        last = self.runs[-1]
        text = f"run {last.id} of {last.job}"
        if len(self.runs) > 1:
            text = f"runs {self.runs[0].id} to {last.id} of {last.job}"
        return text if self.later is None else f"{text} (run {self.later.id} has not finished)"


async def _refuse_circle(name: str, runs: Sequence[Run], store: Store) -> None:
    names = [name]
    while runs and runs[-1].job not in names[1:]:
        names.append(runs[-1].job)
        if names[-1] == name:
            raise UsageError(f"jobs read each other's results in a circle ({' <- '.join(names)}): change one source")
        reads = runs[-1].spec.about.get("results_of")
        runs = await store.finished_runs.of(reads) if isinstance(reads, str) else ()


def _none_finished(job: str, latest: Run | None) -> str:
    if latest is None:
        return f"job {job!r} has no run in this ledger: run it first, or name another ledger with --db"
    if latest.state in {RunState.FAILED, RunState.STOPPED}:
        return f"job {job!r} has no finished run: run {latest.id} {latest.state}; run that job again to continue it"
    if latest.state is RunState.CANCELLED:
        return f"job {job!r} has no finished run: run {latest.id} was cancelled; run that job again"
    return f"job {job!r} has no finished run: run {latest.id} is not done; wait for it, as with `submit --after {job}`"
