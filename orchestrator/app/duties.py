"""The duties of a daemon besides executing runs: job folders, schedules, hooks, debts, retention, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.app.batch_duties import batch_duties
from orchestrator.app.lost_debts import adopt_lost_debts
from orchestrator.domain.timetable import slot_lines
from orchestrator.engine.daemon.owed_notifications import send_owed_notifications
from orchestrator.engine.daemon.schedules import JobFolders, fire_due
from orchestrator.engine.daemon.serve import DEBTS, Duty
from orchestrator.store.prune import retain_daily

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.app.latest_settings import LatestSettings
    from orchestrator.config import Settings
    from orchestrator.store import Store

_SERVING_RETAINS = 600.0  # seconds for deleting old runs; the next time continues
_FOLDERS_EVERY = 2.0  # seconds between two looks at the job folders
_SCHEDULES_EVERY = 1.0  # the same for the schedules
_HOOKS_EVERY = 2.0  # the same for notifications that are owed
_RETENTION_EVERY = 3600.0  # the same for old runs


def duties_of(store: Store, settings: Settings, latest: LatestSettings, say: Callable[[str], None]) -> tuple[Duty, ...]:
    """Return what a daemon does now and then besides executing runs."""
    folders = JobFolders(settings.serve.jobs)

    async def look(now: float) -> None:
        for line in await folders.look(store, now):
            say(line)

    async def fire(now: float) -> None:
        for line in slot_lines(await fire_due(store, now, folders.concern)):
            say(line)

    async def notify(_now: float) -> None:
        await send_owed_notifications(store, say, settings.options)

    async def adopt(_now: float) -> None:
        await adopt_lost_debts(store)

    async def retain(now: float) -> None:
        await retain_daily(store, settings.retention.seconds, now, _SERVING_RETAINS)

    return (
        Duty("job folders", _FOLDERS_EVERY, look),
        Duty("schedules", _SCHEDULES_EVERY, fire),
        Duty("hooks", _HOOKS_EVERY, notify),
        Duty("debts of lost ledgers", DEBTS, adopt),
        Duty("retention", _RETENTION_EVERY, retain),
        *batch_duties(store, latest),
    )
