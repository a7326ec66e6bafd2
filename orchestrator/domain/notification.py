"""Notifications that a run has ended, and the result of delivering them to hooks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Event(StrEnum):
    """What hooks are notified of."""

    FINISHED = "run.finished"  # possibly with discarded items
    FAILED = "run.failed"  # or it stopped early although the user did not ask for that


class NotificationFailed(Exception):
    """A hook did not accept a notification. The text is one line without secrets."""


@dataclass(frozen=True, slots=True)
class Notification:
    """The end of one run. `id` stays the same on every delivery attempt. `body`: run and report, as JSON."""

    id: str
    event: Event
    run: int
    job: str
    state: str
    body: bytes


@dataclass(frozen=True, slots=True)
class NotificationResult:
    """The result of notifying one hook. `said`: the reason for a failure, or the hook's answer."""

    hook: str
    event: str
    at: float
    ok: bool
    said: str = ""
