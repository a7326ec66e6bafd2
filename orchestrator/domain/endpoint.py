"""The states of an endpoint, and what each means for a run."""

from __future__ import annotations

from enum import StrEnum


class EndpointState(StrEnum):
    """Every provider's own states are translated into these at the door."""

    PAUSED = "paused"  # costs nothing, answers nothing
    STARTING = "starting"  # costs money already, answers nothing yet
    AWAKE = "awake"  # answers
    FAILED = "failed"  # will not answer without somebody's help
