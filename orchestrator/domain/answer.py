"""An answer together with what it cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What a data plane gives back for one request where the server said how many tokens it took.

    A request that was one of several in a body has its share of the body's tokens: shares add up to what was said.
    """

    value: object
    tokens_in: int | None
    tokens_out: int | None
