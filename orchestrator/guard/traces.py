"""The file a guard keeps beside the ledger until it has succeeded: which pause it owes, and why the last try failed."""

from __future__ import annotations

import glob
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trace:
    """One guard's file. `debt`: as the guard was told, or None if it only knows the ledger. `said`: the last error."""

    path: Path
    pid: int
    debt: Mapping[str, Any] | None
    said: str

    @property
    def at_work(self) -> bool:
        """Whether the guard is still trying."""
        with suppress(psutil.Error):
            return any(word.endswith("watch.py") for word in psutil.Process(self.pid).cmdline())
        return False


def traces(ledger: Path) -> list[Trace]:
    """Return the files of all this ledger's guards that have not succeeded yet, or have given up."""
    found = []
    for path in sorted(ledger.parent.glob(f"{glob.escape(ledger.name)}.guard-*")):
        with suppress(OSError, ValueError):
            first, *said = path.read_text(errors="replace").splitlines() or [""]
            known = json.loads(first) if first else None
            debt = known if isinstance(known, dict) else None
            found.append(Trace(path, int(path.name.rpartition("-")[2]), debt, said[-1] if said else "no answer yet"))
    return found
