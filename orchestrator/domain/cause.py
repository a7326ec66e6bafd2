"""Cause: items of a run that failed alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """Discarded items of a run that failed alike, with one of them as a sample."""

    kind: str
    status: int | None
    message: str
    items: int
    sample: str
