"""One step of a check and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.domain.phrases import duration


@dataclass(frozen=True, slots=True)
class Step:
    """One step and its verdict."""

    name: str
    verdict: Literal["ok", "failed", "not tried"]
    said: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        took = "" if self.seconds is None else f" ({milliseconds(self.seconds)})"
        return f"{self.name:<8} {self.verdict:<9} {self.said}{took}".rstrip()


def milliseconds(seconds: float) -> str:
    """Return a duration in words, in milliseconds if it is short."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)
