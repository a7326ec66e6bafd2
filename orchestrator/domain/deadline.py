"""Deadline: when the answers of a run are wanted. Runs are ordered by it; nothing stops at it."""

from __future__ import annotations

from datetime import UTC

from orchestrator.domain.moment import moment_at


def deadline_at(text: str, submitted_at: float) -> float:
    """The moment that `8h` or `07:00 Europe/Paris` means for a run that was submitted then; both since 1970 UTC.

    A time of day is the next one, in UTC where no zone is named. One-line `ValueError` for what is neither.
    """
    return moment_at(text, submitted_at, UTC)
