"""Remembered budgets: what was found best for a model on a device, kept in the user's cache for the next worker."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import orjson
import platformdirs

from orchestrator.worker.budget import BatchBudget

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.worker.model import Parameters


class MeasuredBudget(NamedTuple):
    """The best budget so far. `settled`: nothing else is left to be tried."""

    budget: int
    settled: bool


class RememberedBudgets:
    """A budget for each shape of work that is to be tuned, one for all that is not.

    `about`: everything but the parameters of the requests that the best budget depends on: model, device, threads.
    """

    def __init__(self, start: int, about: Mapping[str, object]) -> None:
        self._start = start
        self._about = about
        self._plain = BatchBudget(start)
        self._tuned: dict[bytes, BatchBudget] = {}
        self._kept: dict[bytes, MeasuredBudget] = {}

    def of(self, shared: Parameters, *, tune: bool) -> BatchBudget:
        """The budget for requests with these parameters.

        A remembered one is taken as it is, or tried further where nobody has come to an end with it.
        """
        if not tune:
            return self._plain
        shape = self._shape(shared)
        if shape not in self._tuned:
            found = self._kept[shape] = self._found(shape)
            self._tuned[shape] = BatchBudget(found.budget, tune=not found.settled)
        return self._tuned[shape]

    def keep(self, budget: BatchBudget) -> None:
        """Write down each improvement when it is found, for a run may be too short to come to an end with it."""
        now = MeasuredBudget(budget.value, budget.settled)
        for shape, tuned in self._tuned.items():
            if tuned is budget and self._kept[shape] != now:
                self._kept[shape] = now
                with suppress(OSError):  # then it is found again the next time
                    self._write(shape, now)

    def _shape(self, shared: Parameters) -> bytes:
        parameters = {name: value for name, value in shared.items() if name != "seed"}
        return orjson.dumps({**self._about, "parameters": parameters}, option=orjson.OPT_SORT_KEYS)

    def _found(self, shape: bytes) -> MeasuredBudget:
        """What it begins with, too, where somebody has written something else into the file."""
        nothing = MeasuredBudget(self._start, settled=False)
        try:
            said = orjson.loads(_file(shape).read_bytes())
            budget, settled = said["budget"], said.get("settled") is not False
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return nothing
        sound = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
        return MeasuredBudget(budget, settled) if sound else nothing

    def _write(self, shape: bytes, found: MeasuredBudget) -> None:
        path = _file(shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_bytes(orjson.dumps({**found._asdict(), "for": orjson.loads(shape)}, option=orjson.OPT_INDENT_2))
        aside.replace(path)


def _file(shape: bytes) -> Path:
    folder = platformdirs.user_cache_path("orchestrator", appauthor=False) / "budgets"
    return folder / f"{hashlib.sha256(shape).hexdigest()[:32]}.json"
