"""Reuse answers that are already paid for: this job's under another `parse`, and those of other jobs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import RequestFailed
from orchestrator.engine.asking.parse import parsed
from orchestrator.store.answers import Reparsed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.engine.asking.parse import Parse
    from orchestrator.store import Store
    from orchestrator.store.row_classes import NewItem

_LOOKED_AT = 1000  # rows after which a job that has answered none of them is no longer checked


async def reuse(store: Store, run_id: int, others: Sequence[int], parse: Parse) -> None:
    """Take over these jobs' answers to the run's unsettled items; the first job that has an answer counts.

    Outputs are made from the answers, with this job's `parse`. Asks of rollouts that are left are taken over, too.
    If killed, the next call continues.
    """
    for other in others:
        async for part in store.reuse.parts(run_id, other):
            await store.reuse.adopt(part, await to_thread.run_sync(parse_page, parse, part.answers))
    for other in others:
        await store.reuse.adopt_asks(run_id, other)


@dataclass(slots=True)
class Elsewhere:
    """Counts how many of the rows to ask other jobs have answered; `jobs`: names by number."""

    store: Store
    job_id: int | None
    jobs: Mapping[int, str]
    _seen: int = 0
    _found: Counter[int] = field(default_factory=Counter)

    @property
    def answered_by(self) -> dict[str, int]:
        """The number of rows by the job that has answered them, highest first."""
        return {self.jobs[number]: rows for number, rows in self._found.most_common()}

    @property
    def hints(self) -> list[str]:
        """The options that reuse these answers; empty if no other job has answered any."""
        return [
            f"{rows:,} of them were answered by job {name}: `--reuse {name}`" for name, rows in self.answered_by.items()
        ]

    async def look(self, rows: Sequence[NewItem]) -> None:
        """Count these rows."""
        promising = [number for number in self.jobs if self._seen < _LOOKED_AT or number in self._found]
        self._seen += len(rows)
        if promising:
            self._found.update(await self.store.reuse.answered(self.job_id, rows, promising))


async def reparse(store: Store, job_id: int, parse: Parse, fingerprint: str) -> None:
    """Make all outputs of a job with this `parse`. An answer that it refuses is discarded, and not asked again.

    If killed, the next call starts over: the answers themselves are never changed.
    """
    if await store.runs.parse_of(job_id) == fingerprint:
        return
    async for page in store.answers.pages(job_id):
        await store.answers.reparse(await to_thread.run_sync(parse_page, parse, page))
    await store.runs.parsed_with(job_id, fingerprint)


def parse_page(parse: Parse, page: Sequence[tuple[int, str]]) -> list[Reparsed]:
    """Return the outputs of these answers, each with its item's key. Runs the job's code in a worker thread."""
    return [_parse_one(parse, key, answer) for key, answer in page]


def _parse_one(parse: Parse, key: int, answer: str) -> Reparsed:
    if parse is None:
        return Reparsed(key, output=answer, answer=None, refused=None)
    try:
        return Reparsed(key, output=parsed(parse, exact_json.loads(answer)), answer=answer, refused=None)
    except RequestFailed as failure:
        return Reparsed(key, output=None, answer=answer, refused=failure.message)
