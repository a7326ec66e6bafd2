"""RunSummary: a run of the ledger, as a script lists it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.engine.status import state_word

if TYPE_CHECKING:
    from orchestrator.domain.run import Counts, Run


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as the ledger had it when it was read.

    `state`: "ingesting", "open", "running", "held", "finished", "failed", "stopped", "cancelled" or "superseded".
    `counts`: its items by state. `created_at`, `started_at`, `finished_at`: in UTC; None if that has not happened.
    `error`: why it failed or stopped, in one line.
    """

    id: int
    job: str
    state: str
    counts: Counts
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None

    def __repr__(self) -> str:
        """Return one line with what matters."""
        return f"<Run {self.id} of {self.job}: {self.state}, {self.counts}>"


def summary_of(run: Run, counts: Counts) -> RunSummary:
    """Return the summary of a run of the ledger."""
    return RunSummary(
        run.id,
        run.job,
        str(state_word(run)),
        counts,
        datetime.fromtimestamp(run.created_at, UTC),
        _moment(run.started_at),
        _moment(run.finished_at),
        run.error,
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
