"""What workers on this machine say of themselves, each in a file beside its log, for `status` and the progress."""

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

_STALE = 10.0  # seconds: whoever says nothing for that long says nothing of now


def vitals_file(name: str, parent: int) -> Path:
    """Where the worker of this endpoint writes, that has this parent."""
    log = ServerLog.of(name).path
    return log.with_name(f"{log.stem}.{parent}.vitals")


def vitals_of(parent: int, started: float) -> list[Vitals]:
    """Of the workers that this process has now, by name. Tidies up after those that are gone. Looks at the disk."""
    found = []
    for path in vitals_file("any", parent).parent.glob("*.vitals"):
        with suppress(OSError, ValueError, TypeError):  # ended meanwhile, or written by another version
            vitals = Vitals(**orjson.loads(path.read_bytes()))
            if not psutil.pid_exists(vitals.pid):
                path.unlink()
            elif vitals.parent == parent and abs(vitals.parent_started - started) < 1 and _is_fresh(vitals):
                found.append(vitals)
    return sorted(found, key=lambda vitals: vitals.endpoint)


def _is_fresh(vitals: Vitals) -> bool:
    return abs(time.time() - vitals.at) < _STALE
