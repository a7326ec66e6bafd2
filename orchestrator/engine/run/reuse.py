"""reuse: answers that are paid for already: this job's, under another `parse`; and those that other jobs have."""

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
    from orchestrator.store.snapshots import NewItem

_LOOKED_AT = 1000  # rows of which a job has answered none: it is looked at no more


async def reuse(store: Store, run_id: int, others: Sequence[int], parse: Parse) -> None:
    """Take over what these jobs have answered of the run's unsettled items; the first one that has an answer counts.

    Outputs are made from the answers, with this job's `parse`. Killed half-way, it goes on.
    """
    for other in others:
        async for part in store.reuse.parts(run_id, other):
            await store.reuse.adopt(part, await to_thread.run_sync(parse_page, parse, part.answers))


@dataclass(slots=True)
class Elsewhere:
    """Counts what other jobs have answered of the rows that would be asked; `jobs`: names by number."""

    store: Store
    job_id: int | None
    jobs: Mapping[int, str]
    _seen: int = 0
    _found: Counter[int] = field(default_factory=Counter)

    @property
    def found(self) -> dict[str, int]:
        """Rows by the job that has answered them, the most first."""
        return {self.jobs[number]: rows for number, rows in self._found.most_common()}

    @property
    def hints(self) -> list[str]:
        """What to type to have them; nothing where no other job has answered any."""
        return [f"{rows:,} of them were answered by job {name}: `--reuse {name}`" for name, rows in self.found.items()]

    async def look(self, rows: Sequence[NewItem]) -> None:
        """Count these."""
        promising = [number for number in self.jobs if self._seen < _LOOKED_AT or number in self._found]
        self._seen += len(rows)
        if promising:
            self._found.update(await self.store.reuse.answered(self.job_id, rows, promising))


async def reparse(store: Store, job_id: int, parse: Parse, fingerprint: str) -> None:
    """Bring all outputs of a job to this `parse`. An answer it refuses is discarded with the reason, not asked again.

    Killed half-way, it starts over: the answers themselves are never touched.
    """
    if await store.runs.parse_of(job_id) == fingerprint:
        return
    async for page in store.answers.pages(job_id):
        await store.answers.reparse(await to_thread.run_sync(parse_page, parse, page))
    await store.runs.parsed_with(job_id, fingerprint)


def parse_page(parse: Parse, page: Sequence[tuple[int, str]]) -> list[Reparsed]:
    """The outputs of these answers, each with its item's key. Runs the job's code: for a worker thread."""
    return [_parse_one(parse, key, answer) for key, answer in page]


def _parse_one(parse: Parse, key: int, answer: str) -> Reparsed:
    if parse is None:
        return Reparsed(key, output=answer, answer=None, refused=None)
    try:
        return Reparsed(key, output=parsed(parse, exact_json.loads(answer)), answer=answer, refused=None)
    except RequestFailed as failure:
        return Reparsed(key, output=None, answer=answer, refused=failure.message)
