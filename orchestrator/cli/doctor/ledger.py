"""Whether the ledger is sound, and has room to grow."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.cli.backup import megabytes
from orchestrator.cli.doctor.finding import Finding
from orchestrator.store.migrate import HEAD
from orchestrator.store.private import open_to_everybody
from orchestrator.store.sqlite import WAL, describe

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.cli.doctor.finding import Findings, Patient
    from orchestrator.store.health import LedgerHealth

_LITTLE = 100e6  # bytes: less than that free, and even a small run may fill the disk
_AMPLE = 1e9
_SAFETY = 3  # times what the answers are expected to take
_LONG_LOG = 256e6  # bytes of a write-ahead log that is not folded into the ledger any more
_ROOMY = 0.5  # part of the file that is free
_RESTORE = "restore a backup (`orchestrator backup FILE` makes one), or name another ledger with --db"


async def library(_patient: Patient) -> Findings:
    """Which SQLite, and whether it may use a write-ahead log."""
    if WAL:
        return [Finding("SQLite", "ok", describe())]
    remedy = "install pysqlite3, which carries a sound SQLite, or Python with SQLite 3.51.3 or later"
    return [Finding("SQLite", "warn", describe(), f"it works, and others wait longer for the ledger; {remedy}")]


async def file(patient: Patient) -> Findings:
    """Whether it is there, can be read and written, and is of this program's schema."""
    ledger, health = patient.ledger, patient.health
    if patient.unreadable is not None:
        return [Finding("ledger", "fail", f"{ledger}: {patient.unreadable}", _RESTORE)]
    if health is None:
        return [await to_thread.run_sync(_not_yet, ledger)]
    seen = f"{ledger}: {megabytes(health.size)}, schema {health.revision}, {health.journal_mode} journal"
    if not await to_thread.run_sync(_writable, ledger):
        return [Finding("ledger", "fail", f"{seen}; cannot be written", "check the permissions of file and folder")]
    return [_schema(health, seen)]


async def privacy(patient: Patient) -> Findings:
    """Whether everybody can read what was asked and answered."""
    if patient.health is None or patient.health.revision is None:
        return []
    if not await to_thread.run_sync(open_to_everybody, patient.ledger):
        return [Finding("privacy", "ok", "not everybody on this machine can read it")]
    remedy = f"chmod 600 {patient.ledger}; its owner's next command does it, too"
    return [Finding("privacy", "warn", "everybody on this machine can read the ledger", remedy)]


def _schema(health: LedgerHealth, seen: str) -> Finding:
    if health.revision is None:
        return Finding("ledger", "fail", f"{seen}: this is not a ledger", "name another one with --db")
    if health.revision > HEAD:
        remedy = "upgrade orchestrator, or name another ledger with --db"
        return Finding("ledger", "fail", f"{seen}; this version knows {HEAD}", remedy)
    if health.revision < HEAD:
        remedy = "the next command upgrades it, and keeps a copy beside it"
        return Finding("ledger", "warn", f"{seen}; this version has {HEAD}", remedy)
    return Finding("ledger", "ok", seen)


async def pages(patient: Patient) -> Findings:
    """Every page and every reference."""
    health = patient.health
    if health is None:
        return []
    if health.unsound:
        return [Finding("pages", "fail", f"corrupt: {'; '.join(health.unsound)}"[:300], f"stop using it; {_RESTORE}")]
    if health.dangling:
        seen = f"{health.dangling:,} rows refer to rows that are not there"
        return [Finding("pages", "fail", seen, f"please report this; {_RESTORE}")]
    if not health.looked_at_all:
        return [Finding("pages", "ok", "nothing wrong in those that there was time for (--patience looks longer)")]
    return [Finding("pages", "ok", "sound, and every reference leads somewhere")]


async def space(patient: Patient) -> Findings:
    """What is free inside the file, and how long its log is."""
    health = patient.health
    if health is None:
        return []
    seen = f"{health.free:.0%} of the file is free, log of {megabytes(health.log_size)}"
    if health.log_size > _LONG_LOG:
        remedy = "something has been reading the ledger for long; find it with `lsof`, and let it end"
        return [Finding("space", "warn", seen, remedy)]
    if health.free > _ROOMY and health.size > _AMPLE:
        return [Finding("space", "warn", seen, "`orchestrator compact`, when nobody uses it")]
    return [Finding("space", "ok", seen)]


async def disk(patient: Patient) -> Findings:
    """Whether the disk has room for what is to come: three times the answers that are expected."""
    folder = await to_thread.run_sync(_existing, patient.ledger.parent)
    free = (await to_thread.run_sync(shutil.disk_usage, folder)).free
    growth = patient.health.growth * _SAFETY if patient.health is not None else 0.0
    expected = f", {megabytes(int(growth))} wanted for what is unfinished" if growth else ""
    seen, remedy = f"{megabytes(free)} free at {folder}{expected}", "free some space, or move the ledger (--db)"
    if free < max(_LITTLE, growth):
        return [Finding("disk", "fail", seen, remedy)]
    return [Finding("disk", "warn" if free < _AMPLE else "ok", seen, remedy if free < _AMPLE else "")]


def _not_yet(ledger: Path) -> Finding:
    folder = _existing(ledger.parent)
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding("ledger", "ok", f"{ledger}: none yet, the first run makes it")
    return Finding("ledger", "fail", f"{ledger} cannot be made in {folder}", "name another one with --db")


def _writable(ledger: Path) -> bool:
    """Its folder, too: journals stand beside it."""
    if not all(os.access(path, os.W_OK) for path in (ledger, ledger.parent)):
        return False
    try:
        return not os.statvfs(ledger).f_flag & os.ST_RDONLY
    except OSError:
        return False


def _existing(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
