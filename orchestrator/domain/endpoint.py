"""The states of an endpoint, and what each means for a run."""

from __future__ import annotations

from enum import StrEnum


class EndpointState(StrEnum):
    """Every provider's own states are translated into these at the door."""

    PAUSED = "paused"  # costs nothing, answers nothing until it is resumed
    SCALED_TO_ZERO = "scaled to zero"  # costs nothing, a request wakes it
    STARTING = "starting"  # costs money already, answers nothing yet
    AWAKE = "awake"  # runs; whether it answers is another question
    FAILED = "failed"  # will not answer without somebody's help
    GONE = "gone"  # deleted, or never there

    @property
    def asleep(self) -> bool:
        """Whether it costs nothing."""
        return self in {EndpointState.PAUSED, EndpointState.SCALED_TO_ZERO, EndpointState.GONE}
