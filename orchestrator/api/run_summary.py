"""Runs of the ledger as scripts see them: in a list, in the queue, and with all that is known of one now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.engine.status import state_word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.run import Cause, Counts, Run, Tokens
    from orchestrator.domain.traffic import Traffic
    from orchestrator.domain.worker import Vitals


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


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """A run in the queue. `new`: this call has queued it. `served`: a daemon is running that will take it."""

    run: RunSummary
    new: bool
    served: bool


@dataclass(frozen=True, slots=True)
class StatusSummary:
    """A run and what is known of it now.

    `tokens`: those that the answers took. `causes`: discarded items by cause, the most frequent first. `noted`:
    completed items by what is to be known of them, such as a shortened input. `traffic`: how its endpoints answer.
    `asks`: what a rollout has asked, by endpoint. `waits`: what the run waits for, in words. `cost_left`: dollars that
    finishing will cost, if a process executes it and that is known. `workers`: that process's local workers.
    """

    run: RunSummary
    tokens: Tokens
    causes: Sequence[Cause]
    noted: Mapping[str, int]
    traffic: Traffic
    asks: Sequence[AskTotal]
    waits: str | None
    cost_left: float | None
    workers: Sequence[Vitals]

    @property
    def state(self) -> str:
        """The run's state in one word, as in its summary."""
        return self.run.state

    @property
    def counts(self) -> Counts:
        """Its items by state."""
        return self.run.counts

    def __repr__(self) -> str:
        """Return one line with what matters."""
        return f"{str(self.run)[:-1]}{'' if self.waits is None else f'; {self.waits}'}>"


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
