"""Checks that the ledger is sound and has room to grow."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.app.doctor.finding import Finding
from orchestrator.domain.phrases import megabytes
from orchestrator.store.migrate import HEAD
from orchestrator.store.private import open_to_everybody
from orchestrator.store.sqlite import WAL, describe

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.app.doctor.finding import Findings, Patient
    from orchestrator.store.health import LedgerHealth

_LITTLE = 100e6  # bytes of free space, below which even a small run may fill the disk
_AMPLE = 1e9
_SAFETY = 3  # the free space we ask for, as a multiple of the expected size of the answers
_LONG_LOG = 256e6  # bytes of a write-ahead log that is no longer being folded into the ledger
_ROOMY = 0.5  # free part of the file from which compacting pays
_RESTORE = "restore a backup (`orchestrator backup FILE` makes one), or name another ledger with --db"


async def library(_patient: Patient) -> Findings:
    """Report the SQLite version, and whether it can use a write-ahead log safely."""
    if WAL:
        return [Finding("SQLite", "ok", describe())]
    remedy = "install pysqlite3, which bundles a sound SQLite, or a Python with SQLite 3.51.3 or later"
    return [Finding("SQLite", "warn", describe(), f"it works, but processes wait longer for the ledger; {remedy}")]


async def file(patient: Patient) -> Findings:
    """Check that the ledger exists, can be read and written, and has this version's schema."""
    ledger, health = patient.ledger, patient.health
    if patient.unreadable is not None:
        return [Finding("ledger", "fail", f"{ledger}: {patient.unreadable}", _RESTORE)]
    if health is None:
        return [await to_thread.run_sync(_not_yet, ledger)]
    seen = f"{ledger}: {megabytes(health.size)}, schema {health.revision}, {health.journal_mode} journal"
    if not await to_thread.run_sync(_writable, ledger):
        return [
            Finding("ledger", "fail", f"{seen}; cannot be written", "check the permissions of the file and its folder")
        ]
    return [_schema(health, seen)]


async def privacy(patient: Patient) -> Findings:
    """Check that other users cannot read the ledger's requests and answers."""
    if patient.health is None or patient.health.revision is None:
        return []
    if not await to_thread.run_sync(open_to_everybody, patient.ledger):
        return [Finding("privacy", "ok", "not readable by all users of this machine")]
    remedy = f"chmod 600 {patient.ledger}; the next command of its owner does so as well"
    return [Finding("privacy", "warn", "all users of this machine can read the ledger", remedy)]


def _schema(health: LedgerHealth, seen: str) -> Finding:
    if health.revision is None:
        return Finding("ledger", "fail", f"{seen}: this is not a ledger", "name another one with --db")
    if health.revision > HEAD:
        remedy = "upgrade orchestrator, or name another ledger with --db"
        return Finding("ledger", "fail", f"{seen}; this version knows {HEAD}", remedy)
    if health.revision < HEAD:
        remedy = "the next command upgrades it and keeps a copy beside it"
        return Finding("ledger", "warn", f"{seen}; this version has {HEAD}", remedy)
    return Finding("ledger", "ok", seen)


async def pages(patient: Patient) -> Findings:
    """Check every page and every reference."""
    health = patient.health
    if health is None:
        return []
    if health.unsound:
        return [Finding("pages", "fail", f"corrupt: {'; '.join(health.unsound)}"[:300], f"stop using it; {_RESTORE}")]
    if health.dangling:
        seen = f"{health.dangling:,} rows refer to rows that do not exist"
        return [Finding("pages", "fail", seen, f"please report this; {_RESTORE}")]
    if not health.looked_at_all:
        return [Finding("pages", "ok", "no error in the pages checked in time (--patience allows more)")]
    return [Finding("pages", "ok", "sound, and all references are valid")]


async def space(patient: Patient) -> Findings:
    """Check the free space inside the file, and the size of its log."""
    health = patient.health
    if health is None:
        return []
    seen = f"{health.free:.0%} of the file is free, log of {megabytes(health.log_size)}"
    if health.log_size > _LONG_LOG:
        remedy = "a process has been reading the ledger for a long time: find it with `lsof`, and end it"
        return [Finding("space", "warn", seen, remedy)]
    if health.free > _ROOMY and health.size > _AMPLE:
        return [Finding("space", "warn", seen, "run `orchestrator compact` while the ledger is not in use")]
    return [Finding("space", "ok", seen)]


async def disk(patient: Patient) -> Findings:
    """Check that the disk has room for three times the answers that are still expected."""
    folder = await to_thread.run_sync(_existing, patient.ledger.parent)
    free = (await to_thread.run_sync(shutil.disk_usage, folder)).free
    growth = patient.health.growth * _SAFETY if patient.health is not None else 0.0
    expected = f", {megabytes(int(growth))} needed for unfinished items" if growth else ""
    seen, remedy = f"{megabytes(free)} free at {folder}{expected}", "free some space, or move the ledger (--db)"
    if free < max(_LITTLE, growth):
        return [Finding("disk", "fail", seen, remedy)]
    return [Finding("disk", "warn" if free < _AMPLE else "ok", seen, remedy if free < _AMPLE else "")]


def _not_yet(ledger: Path) -> Finding:
    folder = _existing(ledger.parent)
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding("ledger", "ok", f"{ledger}: none yet, the first run creates it")
    return Finding("ledger", "fail", f"{ledger} cannot be created in {folder}", "name another one with --db")


def _writable(ledger: Path) -> bool:
    """Whether the ledger and its folder, where SQLite keeps the journal, can be written."""
    if not all(os.access(path, os.W_OK) for path in (ledger, ledger.parent)):
        return False
    try:
        return not os.statvfs(ledger).f_flag & os.ST_RDONLY
    except OSError:
        return False


def _existing(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
