"""The states of an endpoint, and what its provider says of a lack of machines."""

from __future__ import annotations

import re
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


_MACHINES = r"(?:hardware|machines?|instances?|nodes?|gpus?|accelerators?|compute|resources)"
# not a model's "out of memory: GPU 0 has a total capacity of 14 GiB"
_WORDS = re.compile(
    r"(?:\bno|not enough|insufficient|lack of|out of|exceeded) "
    rf"(?:[\w-]+ ){{0,2}}(?:capacity|quota|{_MACHINES} available)"
    rf"|(?:not enough|insufficient|out of) {_MACHINES}|{_MACHINES} (?:unavailable|not available|out of stock)"
    r"|capacity (?:unavailable|error|not available)|insufficient\w*capacity|insufficient [\w.-]+/gpu"
    r"|quota (?:was |is |has been )?exceeded|\bunschedulable|scheduling (?:failure|failed|error|timed out)|\bstockout"
    r"|resources?\s*(?:pool)?\s*exhausted",
    re.IGNORECASE,
)


def lacks_capacity(said: str) -> bool:
    """Whether these words blame the provider's machines, of which there may be some later, and not the endpoint."""
    return _WORDS.search(said) is not None
