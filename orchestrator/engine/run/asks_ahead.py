"""What rollouts would ask now: how many asks the ledger has answered already, and how many are to be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.rollouts.replay import Replay
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.job import Job
    from orchestrator.store import Store
    from orchestrator.store.asks import Known
    from orchestrator.store.row_classes import NewItem

_TOGETHER = 64  # rollouts that are replayed at a time


class AsksAhead:
    """Counts asks of rows that are not settled. A rollout without any ask in the ledger counts as one to make.

    `others`: jobs whose answers are taken over.
    """

    def __init__(
        self, job: Job, identity: Mapping[str, object], job_id: int | None, others: Sequence[int], store: Store
    ) -> None:
        self.answered = 0
        self.missing = 0
        self._replay = Replay(job, identity)
        self._job_id = job_id
        self._others = others
        self._store = store

    async def look(self, rows: Sequence[NewItem]) -> None:
        """Count the asks of these rows."""
        unsettled = set(await self._store.transcripts.unsettled(self._job_id, self._others, rows))
        left = [row for row in rows if row.item_id in unsettled and row.request is not None]
        for start in range(0, len(left), _TOGETHER):
            some = left[start : start + _TOGETHER]
            known = await self._known([row.item_id for row in some])
            self.missing += len(some) - len(known)
            async with task_group() as replays:
                for row in some:
                    if row.item_id in known:
                        replays.start_soon(self._look_at, row, known[row.item_id])

    async def _known(self, items: Sequence[str]) -> Mapping[str, Known]:
        known = {} if self._job_id is None else dict(await self._store.asks.of(self._job_id, items))
        for other in self._others:
            for item, asks in (await self._store.asks.of(other, items)).items():
                own = {key: ask for key, ask in known.get(item, {}).items() if ask.outcome is not None}
                known[item] = {key: ask for key, ask in asks.items() if ask.outcome == "completed"} | own
        return known

    async def _look_at(self, row: NewItem, known: Known) -> None:
        found = await self._replay(row.item_id, (row.request or "").encode(), known)
        self.answered += found.answered
        self.missing += found.missing


class AskedElsewhere:
    """Finds out, by the first rows, which of some other jobs have answered asks that the rollouts of a new job make."""

    def __init__(self, job: Job, identity: Mapping[str, object], jobs: Mapping[int, str], store: Store) -> None:
        self._by_job = {name: AsksAhead(job, identity, None, [number], store) for number, name in jobs.items()}
        self._looked = False

    async def look(self, rows: Sequence[NewItem]) -> None:
        """Look at the first of these rows, the first time."""
        for asks in () if self._looked else self._by_job.values():
            await asks.look(rows[:_TOGETHER])
        self._looked = True

    @property
    def hints(self) -> list[str]:
        """The options that take these answers over."""
        return [
            f"job {name} has answers to asks of these rows: `--reuse {name}`"
            for name, asks in self._by_job.items()
            if asks.answered
        ]
