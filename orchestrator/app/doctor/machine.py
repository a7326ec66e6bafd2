"""Checks of this machine: its clock, its time zones, the size of its logs, its HTTP client."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import platformdirs
from anyio import to_thread

from orchestrator.app.doctor.finding import Finding
from orchestrator.domain.phrases import megabytes
from orchestrator.endpoints.http_client import described_client

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.app.doctor.finding import Findings, Patient

_APART = 1.0  # seconds by which wall clock and monotonic clock may diverge during the checks
_AHEAD = 60.0  # seconds that the ledger may be ahead of this machine's clock, since other machines write to it as well
_MADE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # this program did not exist before
_MUCH = 1e9  # bytes of logs


async def clock(patient: Patient) -> Findings:
    """Check the clock, on which schedules, leases between machines and costs depend."""
    wall, monotonic = time.time(), time.monotonic()
    seen = f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%SZ}"
    apart = (wall - patient.clocks[0]) - (monotonic - patient.clocks[1])
    if wall < _MADE or abs(apart) > _APART:
        jumped = f"{seen}, which jumped by {apart:+.1f} s during this check" if abs(apart) > _APART else seen
        return [Finding("clock", "fail", jumped, "set the clock, and keep it synchronized (chrony, systemd-timesyncd)")]
    newest = patient.there.newest if patient.there is not None else None
    if newest is not None and newest > wall + _AHEAD:
        behind = f"{seen}; the ledger has entries from {datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M:%SZ}"
        remedy = "the clock was set back, or that of another machine is ahead: set both"
        return [Finding("clock", "warn", behind, remedy)]
    return [Finding("clock", "ok", seen)]


async def zones(_patient: Patient) -> Findings:
    """Check that time zones, which schedules name, are known."""
    try:
        await to_thread.run_sync(ZoneInfo, "Europe/Paris")
    except (ZoneInfoNotFoundError, OSError):
        return [Finding("time zones", "fail", "there is no time zone database", "install tzdata (apt or pip)")]
    return [Finding("time zones", "ok", "the database is installed")]


async def logs(patient: Patient) -> Findings:
    """Check the size of the logs of local servers and executed runs."""
    ledger = await to_thread.run_sync(patient.ledger.resolve)
    runs = ledger.with_name(f"{ledger.name}.runs")
    folders = [platformdirs.user_log_path("orchestrator", appauthor=False), runs]
    size = sum([await to_thread.run_sync(_bytes_in, folder) for folder in folders])
    seen = f"{megabytes(size)} in {' and '.join(map(str, folders))}"
    return [Finding("logs", "warn", seen, "delete old ones")] if size > _MUCH else [Finding("logs", "ok", seen)]


async def http_client(patient: Patient) -> Findings:
    """Say which HTTP client asks endpoints."""
    return [Finding("HTTP client", "ok", await to_thread.run_sync(described_client, patient.http_client))]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
