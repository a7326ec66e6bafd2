"""tell: let those know how a run ended who want to. Whatever comes of it, the run's outcome stands."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio
import orjson

from orchestrator.domain.errors import AskedToStop, Busy, Fenced, OrchestratorError, RunStopped
from orchestrator.domain.news import Event, News, NotTold, Told
from orchestrator.domain.report_json import as_json
from orchestrator.domain.report_words import summary
from orchestrator.domain.run import RunState
from orchestrator.engine.report import report_of
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.progress import Progress
    from orchestrator.job import Job
    from orchestrator.ports import Hook
    from orchestrator.store import Store

LONGEST = 120.0  # seconds for all hooks of a run together, whatever each of them allows itself
_BY_HAND = (AskedToStop, Busy, Fenced)  # a person's doing, or another process's run now


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells a job's hooks. `progress` shows what went wrong with that."""

    job: Job
    store: Store
    progress: Progress

    async def owe(self, run_id: int) -> None:
        """Write down that this run's end will be news; what an earlier process died over is told first."""
        if not (self.job.finish_hooks or self.job.failure_hooks):
            return
        for late, state, id_ in await self.store.telling.owed(self.job.name):
            if late != run_id:  # which goes on, and will end again
                await self._tell(late, id_, Event.FINISHED if state is RunState.FINISHED else Event.FAILED)
        await self.store.telling.owe(run_id, _new_id())

    async def finished(self, run_id: int) -> None:
        """It is finished and delivered, and its endpoints are paused."""
        await self._tell_owed(run_id, Event.FINISHED)

    async def failed(self, run_id: int, error: BaseException, *, stop: anyio.Event) -> None:
        """It ended early. No news where a person wanted that, or where it goes on by itself."""
        wanted = isinstance(error, _BY_HAND) or (isinstance(error, RunStopped) and stop.is_set())
        if wanted or not isinstance(error, Exception) or not self.job.failure_hooks:
            return
        with suppress(OrchestratorError):  # the ledger's own trouble has been said, or is what ended the run
            run = await self.store.runs.find(str(run_id))
            undelivered = run.state is RunState.FINISHED and run.delivered_at is None
            if (undelivered or run.state in {RunState.FAILED, RunState.STOPPED}) and run.due_at is None:
                await self._tell_owed(run_id, Event.FAILED)

    async def _tell_owed(self, run_id: int, event: Event) -> None:
        if self.job.finish_hooks or self.job.failure_hooks:
            with suppress(OrchestratorError):
                await self._tell(run_id, await self.store.telling.owe(run_id, _new_id()), event)

    async def _tell(self, run_id: int, id_: str, event: Event) -> None:
        hooks = self.job.finish_hooks if event is Event.FINISHED else self.job.failure_hooks
        told: list[Told] = []
        if hooks:
            news = await self._news(run_id, id_, event)
            with anyio.CancelScope(shield=True):
                told += await _tell_all(hooks, news)
        await self.store.telling.note(run_id, id_, told)
        self.progress.troubles += [f"run {run_id}: could not tell {one.hook}: {one.said}" for one in told if not one.ok]

    async def _news(self, run_id: int, id_: str, event: Event) -> News:
        report = await report_of(self.store, run_id, over=True)
        (run,) = report.runs
        about = {"id": id_, "type": event, "timestamp": datetime.now(UTC).isoformat(), "text": summary(report, UTC)}
        return News(id_, event, run_id, run.ran.job, run.state, orjson.dumps(about | as_json(report)))


async def _tell_all(hooks: Sequence[Hook], news: News) -> list[Told]:
    """Everybody at once."""
    told: dict[int, Told] = {}

    async def tell(number: int, hook: Hook) -> None:
        said = "it took too long"
        with anyio.move_on_after(LONGEST):
            said = await _tell_one(hook, news)
        told[number] = Told(hook.describe(), news.event, time.time(), not said, said)

    async with task_group() as group:
        for number, hook in enumerate(hooks):
            group.start_soon(partial(tell, number, hook))
    return [told[number] for number in sorted(told)]


async def _tell_one(hook: Hook, news: News) -> str:
    """Why not; "" where it was told."""
    try:
        await hook.tell(news)
    except NotTold as why:
        return str(why)
    except Exception as mistake:  # noqa: BLE001 - a hook of the user's own must not change what became of the run
        return type(mistake).__name__  # its text may hold anything
    return ""


def _new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"
