"""Run end: record in the ledger and the queue, and report to listeners and hooks, why a run did not finish."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import OrchestratorError, RunStopped, UsageError, described
from orchestrator.domain.events import RunEnded
from orchestrator.domain.queue import Again, Claim, Over, after_stop
from orchestrator.domain.run import RunState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.domain.run import Run
    from orchestrator.engine.events import Events
    from orchestrator.engine.run.notifier import Notifier
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class RunEnd:
    """Records failures in three blocks of one run: before it begins, while it works, and while it delivers."""

    store: Store
    events: Events
    notifier: Notifier
    stop: Stop

    @asynccontextmanager
    async def unbegun(self, request: RunRequest) -> AsyncIterator[None]:
        """Record why a queued run could not begin, and when it is tried again. Other runs are not in the ledger yet."""
        try:
            yield
        except Exception as error:
            if request.claim is not None:
                await self._not_begun(request, request.claim, error)
            raise

    @asynccontextmanager
    async def unfinished(self, run: Run, process_id: int) -> AsyncIterator[None]:
        """Record why the run is not finished, and when it continues if it is queued."""
        try:
            yield
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._not_finished(run, process_id, error)
                await self.notifier.failed(run.id, error, stop=self.stop)
            raise

    @asynccontextmanager
    async def undelivered(self, run: Run, process_id: int) -> AsyncIterator[None]:
        """Record when delivery of a finished run is tried again."""
        try:
            yield
        except BaseException as error:
            self.events.emit(_ended(run, error))
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):
                await self._requeue(run, process_id, error)
            await self.notifier.failed(run.id, error, stop=self.stop)
            raise

    async def _not_begun(self, request: RunRequest, claim: Claim, error: Exception) -> None:
        match after_stop(error, now=time.time(), tries=1):
            case Again(at, why, fruitless):
                await self.store.queue.requeue(claim, at, why, fruitless=fruitless)
            case Over():
                await self.store.queue.fail(claim, described(error), owed=bool(request.job.failure_hooks))
                await self.notifier.failed(claim.run_id, error, stop=self.stop)

    async def _not_finished(self, run: Run, process_id: int, error: BaseException) -> None:
        """Record why the run ended. A failure to do so, as on a full disk, must not hide that reason."""
        ended = _ended(run, error)
        self.events.emit(ended)
        try:
            if isinstance(error, UsageError) and not self.events.progress.asked:
                await self.store.runs.not_begun(run.id, process_id)
            await self.store.runs.end(run.id, process_id, RunState(ended.outcome), ended.why)
            await self._requeue(run, process_id, error)
        except OrchestratorError as second:
            error.add_note(f"(this could not be recorded in the ledger: {second})")

    async def _requeue(self, run: Run, process_id: int, error: BaseException) -> None:
        """Record when a queued run that this process executes continues."""
        if run.due_at is None:
            return
        claim = Claim(run.id, process_id)
        match after_stop(error, now=time.time(), tries=run.tries):
            case Again(at, why, fruitless):
                await self.store.queue.requeue(claim, at, why, fruitless=fruitless)
            case Over():
                await self.store.queue.leave(claim)


def _ended(run: Run, error: BaseException) -> RunEnded:
    failed = isinstance(error, Exception) and not isinstance(error, RunStopped)
    why = described(error) if isinstance(error, Exception) else "interrupted"
    return RunEnded(run.id, RunState.FAILED if failed else RunState.STOPPED, why)
