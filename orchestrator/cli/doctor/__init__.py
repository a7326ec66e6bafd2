"""orchestrator doctor: check an installation, and name a remedy for each problem."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import Globals, print_json, without_store
from orchestrator.cli.doctor import endpoints, files, ledger, machine, processes
from orchestrator.cli.doctor.finding import Finding, Findings, Patient
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.phrases import visible
from orchestrator.endpoints import named
from orchestrator.job_file import load_job
from orchestrator.store.database import ledger_path
from orchestrator.store.health import Unreadable, examine

if TYPE_CHECKING:
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
    endpoints.settings,
    endpoints.tokens,
    endpoints.reach,
    processes.daemons,
    processes.runs,
    processes.failed,
    processes.debts,
    processes.guards,
    processes.jobs,
    files.outputs,
)
_WIDTH = 20
_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}

SomeJob = Annotated[Path | None, typer.Argument(help="A job file whose endpoints and files are checked as well.")]
Offline = Annotated[bool, typer.Option("--offline", help="Contact no endpoint and no provider.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds for checking the ledger's pages.", metavar="SECONDS")]


def doctor(
    context: typer.Context,
    jobfile: SomeJob = None,
    offline: Offline = False,
    patience: Patience = 60.0,
    json: AsJson = False,
) -> None:
    """Check everything that a run needs, and show each problem with its remedy. Changes nothing."""
    found = without_store(context, partial(_examine, context.obj, jobfile, patience, offline=offline), json=json)
    well = all(finding.verdict != "fail" for finding in found)
    if json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            _show(finding)
    raise typer.Exit(ExitCode.COMPLETED if well else ExitCode.FAILED)


def _show(finding: Finding) -> None:
    mark = typer.style(f"{finding.verdict:<5}", fg=_COLOURS[finding.verdict])
    typer.echo(f"{mark} {visible(f'{finding.name:<{_WIDTH}} {finding.seen}')}".rstrip())
    if finding.verdict != "ok" and finding.remedy:
        say(f"{'':<5} {'':<{_WIDTH}} -> {finding.remedy}")


async def _examine(options: Globals, jobfile: Path | None, patience: float, *, offline: bool) -> list[Finding]:
    clocks = time.time(), time.monotonic()
    settings = await to_thread.run_sync(options.settings)
    path = await to_thread.run_sync(ledger_path, settings.ledger)
    health, unreadable = await to_thread.run_sync(_health, path, patience)
    job = None if jobfile is None else await to_thread.run_sync(_job, jobfile)
    known = await to_thread.run_sync(_endpoints, settings)
    known |= {str(jobfile): job} if isinstance(job, str) else _of_job(job)
    loaded = None if jobfile is None or job is None or isinstance(job, str) else (jobfile, job)
    patient = Patient(path, health, unreadable, known, settings.endpoints, loaded, offline, clocks)
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
