"""The result of one check of `orchestrator doctor`, and the input of all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.http_client import ChosenClient
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store.health import LedgerHealth

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `seen` is one line; `remedy` says what to do unless the verdict is ok."""

    name: str
    verdict: Verdict
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is checked.

    `health`: None if there is no ledger yet or it cannot be read; `unreadable` then says why.
    `endpoints`: those of the settings file, by their names there, and those of the job file; a string says why one
    cannot be used. `settings`: the names in the settings file. `job`: the job file and its job, if one is given and
    can be loaded. `clocks`: wall clock and monotonic clock when the first check began. `http_client`: the setting.
    """

    ledger: Path
    health: LedgerHealth | None
    unreadable: str | None
    endpoints: Mapping[str, Endpoint | str]
    settings: Collection[str]
    job: tuple[Path, Job] | None
    offline: bool
    clocks: tuple[float, float]
    http_client: ChosenClient

    @property
    def there(self) -> LedgerHealth | None:
        """The ledger's health, or None unless its rows are sound and of this version's schema."""
        health = self.health
        return health if health is not None and health.current and not health.unsound else None


Findings = Sequence[Finding]
