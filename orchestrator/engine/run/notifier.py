"""Notifier: tell a job's hooks how a run ended. Failures to do so do not change the run's outcome."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio
import orjson

from orchestrator.domain.errors import AskedToStop, Busy, Fenced, OrchestratorError, RunStopped
from orchestrator.domain.events import HookFailed, HookNotified
from orchestrator.domain.notification import Event, Notification, NotificationFailed, NotificationResult
from orchestrator.domain.report_json import as_json
from orchestrator.domain.report_words import summary
from orchestrator.domain.run import RunState
from orchestrator.engine.awake.reaper import kept_alive, registered
from orchestrator.engine.report import report_of
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.stop import Stop
    from orchestrator.job import Job
    from orchestrator.ports import EventListener, Hook
    from orchestrator.store import Store

LONGEST = 120.0  # seconds for all hooks of a run together, whatever their own timeouts
_BY_HAND = (AskedToStop, Busy, Fenced)  # the user stopped it, or another process has the run now


@dataclass(frozen=True, slots=True)
class Notifier:
    """Notifies the hooks of one job."""

    job: Job
    store: Store
    events: EventListener

    async def owe(self, run_id: int, process_id: int) -> None:
        """Record that this run's end is owed to the hooks; first send what earlier processes died over."""
        if not (self.job.finish_hooks or self.job.failure_hooks):
            return
        for late, state, id_ in await self.store.notifications.owed(self.job.name):
            goes_on = late == run_id  # it is being continued, and will end again
            if not goes_on and await self.store.notifications.take(late, process_id):
                await self._notify(late, id_, Event.FINISHED if state is RunState.FINISHED else Event.FAILED)
        await self.store.notifications.owe(run_id)

    async def finished(self, run_id: int) -> None:
        """Notify the hooks that the run is finished and delivered, with its endpoints paused."""
        await self._notify_owed(run_id, Event.FINISHED)

    async def failed(self, run_id: int, error: BaseException, *, stop: Stop) -> None:
        """Notify the hooks that the run ended early, unless the user wanted that or it continues by itself."""
        wanted = isinstance(error, _BY_HAND) or (isinstance(error, RunStopped) and stop.requested)
        if wanted or not isinstance(error, Exception) or not self.job.failure_hooks:
            return
        with suppress(OrchestratorError):  # a ledger error has been reported, or is what ended the run
            run = await self.store.runs.find(str(run_id))
            undelivered = run.state is RunState.FINISHED and run.delivered_at is None
            if (undelivered or run.state in {RunState.FAILED, RunState.STOPPED}) and run.due_at is None:
                await self._notify_owed(run_id, Event.FAILED)

    async def _notify_owed(self, run_id: int, event: Event) -> None:
        if self.job.finish_hooks or self.job.failure_hooks:
            with suppress(OrchestratorError):
                await self._notify(run_id, await self.store.notifications.owe(run_id), event)

    async def _notify(self, run_id: int, id_: str, event: Event) -> None:
        hooks = self.job.finish_hooks if event is Event.FINISHED else self.job.failure_hooks
        for result in await _notify_all(self.store, run_id, id_, event, hooks):
            if result.ok:
                self.events.emit(HookNotified(run_id, result.hook))
            else:
                self.events.emit(HookFailed(run_id, result.hook, result.said))


async def notify_late(store: Store, run_id: int, job: Job | None, otherwise: Sequence[Hook]) -> list[str]:
    """Send the notification that a run's own process could not send; return messages about failures.

    `otherwise`: the hooks for a failure if the job has none, or cannot be loaded.
    """
    async with registered(store) as process_id, kept_alive(store, process_id):
        owed = {run: (state, id_) for run, state, id_ in await store.notifications.owed()}
        if run_id not in owed or not await store.notifications.take(run_id, process_id):
            return []
        state, id_ = owed[run_id]
        if state is RunState.FINISHED:
            event, hooks = Event.FINISHED, job.finish_hooks if job is not None else ()
        else:
            event, hooks = Event.FAILED, (job.failure_hooks if job is not None else ()) or tuple(otherwise)
        results = await _notify_all(store, run_id, id_, event, hooks)
        return [f"run {run_id}: could not notify {result.hook}: {result.said}" for result in results if not result.ok]


async def _notify_all(
    store: Store, run_id: int, id_: str, event: Event, hooks: Sequence[Hook]
) -> list[NotificationResult]:
    """Notify every hook, and record the results in the ledger."""
    results: list[NotificationResult] = []
    if hooks:
        notification = await _notification(store, run_id, id_, event)
        with anyio.CancelScope(shield=True):
            results += await _notify_each(hooks, notification)
    await store.notifications.note(run_id, id_, results)
    return results


async def _notification(store: Store, run_id: int, id_: str, event: Event) -> Notification:
    report = await report_of(store, run_id, over=True)
    (run,) = report.runs
    about = {"id": id_, "type": event, "timestamp": datetime.now(UTC).isoformat(), "text": summary(report, UTC)}
    return Notification(id_, event, run_id, run.ran.job, run.state, orjson.dumps(about | as_json(report)))


async def _notify_each(hooks: Sequence[Hook], notification: Notification) -> list[NotificationResult]:
    """Notify all hooks at the same time."""
    results: dict[int, NotificationResult] = {}

    async def notify(number: int, hook: Hook) -> None:
        failure = "it took too long"
        with anyio.move_on_after(LONGEST):
            failure = await _notify_one(hook, notification)
        results[number] = NotificationResult(hook.describe(), notification.event, time.time(), not failure, failure)

    async with task_group() as group:
        for number, hook in enumerate(hooks):
            group.start_soon(partial(notify, number, hook))
    return [results[number] for number in sorted(results)]


async def _notify_one(hook: Hook, notification: Notification) -> str:
    """Notify one hook; return why that failed, or ""."""
    try:
        await hook.notify(notification)
    except NotificationFailed as why:
        return str(why)
    except Exception as mistake:  # noqa: BLE001 - a hook of the user's own must not change what became of the run
        return type(mistake).__name__  # its text may contain secrets
    return ""
