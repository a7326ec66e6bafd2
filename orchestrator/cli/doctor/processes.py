"""Who works on this ledger: daemons, guards, debts, runs that nobody executes."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
from anyio import to_thread

from orchestrator.cli.doctor.finding import Finding
from orchestrator.engine.awake.reaper import dead, here
from orchestrator.guard.traces import traces

if TYPE_CHECKING:
    from orchestrator.cli.doctor.finding import Findings, Patient
    from orchestrator.store.health import OpenWindow
    from orchestrator.store.runs import Process

_OVERDUE = 300.0  # seconds that a queued run may be due before somebody should look why
_SWEEP = "`orchestrator sweep` pauses what nobody uses; run it from cron, too"


async def daemons(patient: Patient) -> Findings:
    """Who takes runs out of the queue."""
    health = patient.there
    if health is None:
        return []
    alive = [one for one in health.serving if not await to_thread.run_sync(dead, one)]
    overdue = health.due is not None and health.due < time.time() - _OVERDUE
    if alive:
        seen = f"{', '.join(map(_who, alive))}; {health.queued:,} runs wait"
        remedy = "`orchestrator queue` says what they wait for"
        return [Finding("daemon", "warn" if overdue else "ok", seen, remedy if overdue else "")]
    if not health.queued:
        return [Finding("daemon", "ok", "none, and nothing is queued")]
    return [Finding("daemon", "fail", f"none, and {health.queued:,} runs wait", "start `orchestrator serve`")]


async def runs(patient: Patient) -> Findings:
    """Runs that a process has which is no more."""
    health = patient.there
    if health is None:
        return []
    stuck = [number for number, holder in health.held_runs if holder is None or await to_thread.run_sync(dead, holder)]
    if stuck:
        seen = f"{_numbers(stuck)} of a process that has died"
        return [Finding("runs", "warn", seen, "run the job again, or let a daemon: it goes on where it was")]
    return [Finding("runs", "ok", f"{len(health.held_runs):,} executed just now")]


async def failed(patient: Patient) -> Findings:
    """Jobs whose latest run failed, and runs whose hooks were never told."""
    health = patient.there
    if health is None:
        return []
    findings = [
        Finding(
            "failed run",
            "warn",
            f"run {number} of {job}: {error or 'no reason is known'}"[:300],
            f"`orchestrator report {number}` says what to type; `orchestrator cancel {number}` gives it up",
        )
        for number, job, error in health.failed
    ]
    if health.untold:
        seen = f"{_numbers(list(health.untold))} ended, and nobody was told: the process died that was about to"
        findings.append(Finding("hooks", "warn", seen, "`orchestrator sweep` tells them; so does `orchestrator serve`"))
    return findings or [Finding("failed runs", "ok", "no job's latest run failed")]


async def debts(patient: Patient) -> Findings:
    """Endpoints that were woken and that nobody alive uses."""
    health = patient.there
    if health is None:
        return []
    used = {window.endpoint for window in health.windows if not await _forsaken(window)}
    owed = [window for window in health.windows if window.owed and window.endpoint not in used]
    findings = [
        Finding("debt", "fail", f"endpoint {one.endpoint} was left awake at {_moment(one.opened_at)}", _SWEEP)
        for one in {one.endpoint: one for one in owed}.values()
    ]
    findings += [
        Finding("kept awake", "ok", f"{one.kept_by} keeps endpoint {one.endpoint} awake since {_moment(one.opened_at)}")
        for one in health.windows
        if one.kept_by is not None and one.endpoint in used
    ]
    return findings or [Finding("debts", "ok", "nothing is owed")]


async def guards(patient: Patient) -> Findings:
    """Whether what pauses an endpoint after a `kill -9` stands beside each run that keeps one awake."""
    health, findings = patient.there, await _failing_guards(patient)
    if health is None:
        return findings
    for window in health.windows:
        if window.holder is None or window.run_id is None or await _forsaken(window):
            continue
        about = f"run {window.run_id} keeps {window.endpoint} awake"
        guarded = await to_thread.run_sync(_guarded, window.holder)
        if guarded is None:
            findings.append(Finding("guard", "ok", f"{about} on another machine, where its guard cannot be seen"))
        elif guarded:
            findings.append(Finding("guard", "ok", f"{about}, and its guard watches"))
        else:
            remedy = f"stop process {window.holder.pid} with SIGTERM, so that it pauses, and run it again; {_SWEEP}"
            findings.append(Finding("guard", "fail", f"{about}, and its guard is gone", remedy))
    return findings or [Finding("guard", "ok", "no run keeps an endpoint awake that bills")]


async def jobs(patient: Patient) -> Findings:
    """Job files and schedules that cannot be used."""
    health = patient.there
    if health is None:
        return []
    remedy = "mend it; `orchestrator schedule list` shows when it is used again"
    findings = [Finding("job file", "fail", f"{path}: {error}"[:300], remedy) for path, error in health.broken]
    return findings or [Finding("job files", "ok", "all that were looked at can be used")]


async def _failing_guards(patient: Patient) -> list[Finding]:
    """Guards that have not been able to pause, or not yet: also where the ledger that owed it is gone."""
    findings = []
    for trace in await to_thread.run_sync(traces, patient.ledger):
        what = "what the ledger owes" if trace.debt is None else f"endpoint {trace.debt.get('endpoint')}"
        doing = "is trying to pause" if trace.at_work else "gave up pausing"
        findings.append(Finding("guard", "fail", f"process {trace.pid} {doing} {what}: {trace.said}"[:300], _SWEEP))
    return findings


async def _forsaken(window: OpenWindow) -> bool:
    if window.kept_by is not None:
        return window.expires_at is not None and window.expires_at <= time.time()
    return window.holder is None or await to_thread.run_sync(dead, window.holder)


def _guarded(holder: Process) -> bool | None:
    """Whether a guard stands beside this process; None where that cannot be seen from here."""
    if not here(holder):
        return None
    try:
        children = psutil.Process(holder.pid).children()
        return any(map(_watches, children))
    except psutil.Error:
        return None


def _watches(child: psutil.Process) -> bool:
    """Whether it is a guard, and has not ended."""
    with suppress(psutil.NoSuchProcess):  # as one that is not waited for yet is, too
        return any(word.endswith("watch.py") for word in child.cmdline())
    return False


def _who(process: Process) -> str:
    return f"process {process.pid} on {process.host.partition('/')[0]}"


def _numbers(numbers: list[int]) -> str:
    return ("run " if len(numbers) == 1 else "runs ") + ", ".join(map(str, numbers))


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"
