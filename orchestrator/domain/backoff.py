"""How long to wait before the next attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, capped, with full jitter downwards to half. All in seconds."""

    first: float = 0.5
    factor: float = 2.0
    cap: float = 60.0

    def __post_init__(self) -> None:
        if self.first < 0 or self.factor < 1 or self.cap < self.first:
            raise ValueError(f"backoff needs 0 <= first <= cap and factor >= 1, not {self}")

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); `jitter` is drawn from [0, 1)."""
        exponent = min(attempt - 1, 64)  # past this the cap has long been reached and the power overflows
        full = min(self.cap, self.first * self.factor**exponent)
        return full * (1 - jitter / 2)
