"""Checks of the processes that use this ledger: daemons, guards, debts, abandoned runs."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
from anyio import to_thread

from orchestrator.app.doctor.finding import Finding
from orchestrator.guard.traces import traces

if TYPE_CHECKING:
    from orchestrator.app.doctor.finding import Findings, Patient
    from orchestrator.store.health import OpenWindow
    from orchestrator.store.processes import Process

_OVERDUE = 300.0  # seconds that a queued run may be due before that is worth a warning
_SWEEP = "`orchestrator sweep` pauses endpoints that are not in use; run it from cron as well"


async def daemons(patient: Patient) -> Findings:
    """Check that a daemon executes the queued runs."""
    health = patient.there
    if health is None:
        return []
    alive = [one for one in health.serving if not await to_thread.run_sync(one.is_dead)]
    overdue = health.due is not None and health.due < time.time() - _OVERDUE
    if alive:
        seen = f"{', '.join(map(str, alive))}; {health.queued:,} runs wait"
        remedy = "`orchestrator queue` shows what they wait for"
        return [Finding("daemon", "warn" if overdue else "ok", seen, remedy if overdue else "")]
    if not health.queued:
        return [Finding("daemon", "ok", "none, and nothing is queued")]
    return [Finding("daemon", "fail", f"none, and {health.queued:,} runs wait", "start `orchestrator serve`")]


async def runs(patient: Patient) -> Findings:
    """Report runs whose process has died."""
    health = patient.there
    if health is None:
        return []
    stuck = [
        number for number, holder in health.held_runs if holder is None or await to_thread.run_sync(holder.is_dead)
    ]
    if stuck:
        seen = f"{_numbers(stuck)}: the process has died"
        return [Finding("runs", "warn", seen, "run the job again, or start a daemon: it continues where it stopped")]
    return [Finding("runs", "ok", f"{len(health.held_runs):,} being executed")]


async def failed(patient: Patient) -> Findings:
    """Report jobs whose latest run failed, and runs whose hooks were never notified."""
    health = patient.there
    if health is None:
        return []
    findings = [
        Finding(
            "failed run",
            "warn",
            f"run {number} of {job}: {error or 'no reason is known'}"[:300],
            f"`orchestrator report {number}` shows what to type; `orchestrator cancel {number}` gives the run up",
        )
        for number, job, error in health.failed
    ]
    if health.untold:
        seen = f"{_numbers(list(health.untold))} ended, but the process died before it notified the hooks"
        remedy = "`orchestrator sweep` notifies them; so does `orchestrator serve`"
        findings.append(Finding("hooks", "warn", seen, remedy))
    return findings or [Finding("failed runs", "ok", "no job's latest run failed")]


async def debts(patient: Patient) -> Findings:
    """Report endpoints that were woken and that no living process uses."""
    health = patient.there
    if health is None:
        return []
    used = {window.endpoint for window in health.windows if not await _abandoned(window)}
    owed = [window for window in health.windows if window.owed and window.endpoint not in used]
    findings = [
        Finding("debt", "fail", f"endpoint {one.endpoint} was left awake at {_moment(one.opened_at)}", _SWEEP)
        for one in {one.endpoint: one for one in owed}.values()
    ]
    findings += [
        Finding(
            "kept awake", "ok", f"{one.kept_by} has kept endpoint {one.endpoint} awake since {_moment(one.opened_at)}"
        )
        for one in health.windows
        if one.kept_by is not None and one.endpoint in used
    ]
    return findings or [Finding("debts", "ok", "nothing is owed")]


async def guards(patient: Patient) -> Findings:
    """Check that each run that keeps an endpoint awake has a guard, which pauses it after a `kill -9`."""
    health, findings = patient.there, await _failing_guards(patient)
    if health is None:
        return findings
    for window in health.windows:
        if window.holder is None or window.run_id is None or await _abandoned(window):
            continue
        about = f"run {window.run_id} keeps {window.endpoint} awake"
        guarded = await to_thread.run_sync(_guarded, window.holder)
        if guarded is None:
            findings.append(Finding("guard", "ok", f"{about} on another machine; its guard cannot be seen from here"))
        elif guarded:
            findings.append(Finding("guard", "ok", f"{about}, and its guard is running"))
        else:
            stop = f"stop process {window.holder.pid} with SIGTERM, so that it pauses the endpoint, and run it again"
            findings.append(Finding("guard", "fail", f"{about}, but its guard is gone", f"{stop}; {_SWEEP}"))
    return findings or [Finding("guard", "ok", "no run keeps a billed endpoint awake")]


async def jobs(patient: Patient) -> Findings:
    """Report job files and schedules that cannot be used."""
    health = patient.there
    if health is None:
        return []
    remedy = "fix it; `orchestrator schedule list` shows when it is used again"
    findings = [Finding("job file", "fail", f"{path}: {error}"[:300], remedy) for path, error in health.broken]
    return findings or [Finding("job files", "ok", "all watched job files can be used")]


async def _failing_guards(patient: Patient) -> list[Finding]:
    """Report guards that could not pause an endpoint, or not yet, even if the ledger that owed it is gone."""
    findings = []
    for trace in await to_thread.run_sync(traces, patient.ledger):
        endpoint = "what the ledger owes" if trace.debt is None else f"endpoint {trace.debt.get('endpoint')}"
        doing = "is trying to pause" if trace.at_work else "gave up pausing"
        seen = f"process {trace.pid} {doing} {endpoint}: {trace.said}"
        findings.append(Finding("guard", "fail", seen[:300], _SWEEP))
    return findings


async def _abandoned(window: OpenWindow) -> bool:
    if window.kept_by is not None:
        return window.expires_at is not None and window.expires_at <= time.time()
    return window.holder is None or await to_thread.run_sync(window.holder.is_dead)


def _guarded(holder: Process) -> bool | None:
    """Whether this process has a guard; None if that cannot be seen from here."""
    if not holder.is_here():
        return None
    try:
        children = psutil.Process(holder.pid).children()
        return any(map(_watches, children))
    except psutil.Error:
        return None


def _watches(child: psutil.Process) -> bool:
    """Whether a process is a guard that is still running."""
    with suppress(psutil.NoSuchProcess):  # also raised for a zombie
        return any(word.endswith("watch.py") for word in child.cmdline())
    return False


def _numbers(numbers: list[int]) -> str:
    return ("run " if len(numbers) == 1 else "runs ") + ", ".join(map(str, numbers))


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"
