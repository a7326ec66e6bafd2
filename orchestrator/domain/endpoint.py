"""The states of an endpoint, and how to recognise that its provider has no machines available."""

from __future__ import annotations

import re
from enum import StrEnum


class EndpointState(StrEnum):
    """The state of an endpoint. Each endpoint kind translates its provider's states into these."""

    PAUSED = "paused"  # costs nothing, answers nothing until it is resumed
    SCALED_TO_ZERO = "scaled to zero"  # costs nothing, ended by a timer of the provider; a request or a resume wakes it
    STARTING = "starting"  # already costs money, answers nothing yet
    AWAKE = "awake"  # running; it may not answer yet
    FAILED = "failed"  # will not answer until the user intervenes
    GONE = "gone"  # deleted, or never existed

    @property
    def asleep(self) -> bool:
        """Whether it costs nothing."""
        return self in {EndpointState.PAUSED, EndpointState.SCALED_TO_ZERO, EndpointState.GONE}


_MACHINES = r"(?:hardware|machines?|instances?|nodes?|gpus?|accelerators?|compute|resources)"
# must not match a model's "out of memory: GPU 0 has a total capacity of 14 GiB"
_WORDS = re.compile(
    r"(?:\bno|not enough|insufficient|lack of|out of|exceeded) "
    rf"(?:[\w-]+ ){{0,2}}(?:capacity|quota|{_MACHINES} available)"
    rf"|(?:not enough|insufficient|out of) {_MACHINES}|{_MACHINES} (?:unavailable|not available|out of stock)"
    r"|capacity (?:unavailable|error|not available)|insufficient\w*capacity|insufficient [\w.-]+/gpu"
    r"|quota (?:was |is |has been )?exceeded|\bunschedulable|scheduling (?:failure|failed|error|timed out)|\bstockout"
    r"|resources?\s*(?:pool)?\s*exhausted",
    re.IGNORECASE,
)


def lacks_capacity(message: str) -> bool:
    """Whether the message says that the provider has no machine just now, rather than that the endpoint is at fault."""
    return _WORDS.search(message) is not None
