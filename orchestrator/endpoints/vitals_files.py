"""The vitals that workers on this machine write to a file beside their log, for `status` and the progress bar."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson
import psutil

from orchestrator.domain.worker import Vitals
from orchestrator.endpoints.server_log import ServerLog

if TYPE_CHECKING:
    from pathlib import Path

_STALE = 10.0  # seconds after which vitals no longer describe the present


def vitals_file(name: str, parent: int) -> Path:
    """Return the file that the worker of this endpoint with this parent writes."""
    log = ServerLog.of(name).path
    return log.with_name(f"{log.stem}.{parent}.vitals")


def vitals_of(parent: int, started: float) -> list[Vitals]:
    """Return the current vitals of this process's workers, sorted by name. Deletes the files of dead workers."""
    current = []
    for path in vitals_file("any", parent).parent.glob("*.vitals"):
        with suppress(OSError, ValueError, TypeError):  # deleted in the meantime, or written by another version
            vitals = Vitals(**orjson.loads(path.read_bytes()))
            if not psutil.pid_exists(vitals.pid if vitals.node is None else vitals.parent):
                path.unlink()
            elif vitals.parent == parent and abs(vitals.parent_started - started) < 1 and _is_fresh(vitals):
                current.append(vitals)
    return sorted(current, key=lambda vitals: vitals.endpoint)


def _is_fresh(vitals: Vitals) -> bool:
    return abs(time.time() - vitals.at) < _STALE
