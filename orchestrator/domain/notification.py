"""News: that a run has ended, for those who want to be told; and what became of the telling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Event(StrEnum):
    """What there is to tell."""

    FINISHED = "run.finished"  # also with discarded items
    FAILED = "run.failed"  # or it stopped early, and nobody wanted it to


class NotificationFailed(Exception):
    """Whoever was to be told has not taken it. Its text is one line without any secret."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One run's end. `id` is the same however often it is told. `body`: the report and what it is about, as JSON."""

    id: str
    event: Event
    run: int
    job: str
    state: str
    body: bytes


@dataclass(frozen=True, slots=True)
class NotificationResult:
    """What became of telling somebody. `said`: why not, or what was answered."""

    hook: str
    event: str
    at: float
    ok: bool
    said: str = ""
