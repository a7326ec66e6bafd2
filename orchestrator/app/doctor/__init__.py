"""Checks of an installation, with a remedy for each problem: one module per thing that is checked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.app.doctor import endpoints, files, ledger, machine, processes
from orchestrator.app.doctor.finding import Finding, Findings, Patient
from orchestrator.domain.errors import OrchestratorError
from orchestrator.endpoints import named
from orchestrator.job_file import load_job
from orchestrator.store.database import ledger_path
from orchestrator.store.health import Unreadable, examine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store.health import LedgerHealth

CHECKS: tuple[Callable[[Patient], Awaitable[Findings]], ...] = (
    ledger.library,
    ledger.file,
    ledger.privacy,
    ledger.pages,
    ledger.space,
    ledger.disk,
    machine.clock,
    machine.zones,
    machine.logs,
    machine.http_client,
    endpoints.settings,
    endpoints.tokens,
    endpoints.reach,
    processes.daemons,
    processes.runs,
    processes.failed,
    processes.debts,
    processes.guards,
    processes.jobs,
    files.inputs,
    files.outputs,
)


async def diagnose(settings: Settings, jobfile: Path | None, patience: float, *, offline: bool) -> list[Finding]:
    """Check everything that a run needs, and return what was found. Changes nothing.

    `jobfile`: its endpoints and files are checked as well. `patience`: seconds for checking the ledger's pages.
    `offline`: contact no endpoint and no provider.
    """
    clocks = time.time(), time.monotonic()
    path = await to_thread.run_sync(ledger_path, settings.ledger)
    health, unreadable = await to_thread.run_sync(_health, path, patience)
    job = None if jobfile is None else await to_thread.run_sync(_job, jobfile)
    known = await to_thread.run_sync(_endpoints, settings)
    known |= {str(jobfile): job} if isinstance(job, str) else _of_job(job)
    loaded = None if jobfile is None or job is None or isinstance(job, str) else (jobfile, job)
    patient = Patient(
        path, health, unreadable, known, settings.endpoints, loaded, offline, clocks, settings.http_client
    )
    return [finding for check in CHECKS for finding in await check(patient)]


def _health(path: Path, patience: float) -> tuple[LedgerHealth | None, str | None]:
    try:
        return (examine(path, patience), None) if path.exists() else (None, None)
    except Unreadable as failure:
        return None, str(failure)


def _endpoints(settings: Settings) -> dict[str, Endpoint | str]:
    """Return the endpoints of the settings file by name; for those that cannot be made, the reason."""
    found: dict[str, Endpoint | str] = {}
    for name in settings.endpoints:
        try:
            found[name] = named(name)
        except OrchestratorError as failure:
            found[name] = str(failure)
    return found


def _job(jobfile: Path) -> Job | str:
    """Return the job, or why it cannot be loaded."""
    try:
        return load_job(jobfile)
    except OrchestratorError as failure:
        return str(failure)


def _of_job(job: Job | None) -> dict[str, Endpoint | str]:
    if job is None:
        return {}
    used = [one.endpoint for one in job.endpoints] + ([job.fallback] if job.fallback is not None else [])
    return {endpoint.name: endpoint for endpoint in used}
