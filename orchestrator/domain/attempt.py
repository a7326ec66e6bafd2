"""How an attempt ended: a closed union."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from orchestrator.domain.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class Completed:
    """`output` is what is delivered, `answer` what the model said where `parse` made the output; both JSON text.

    `tokens_in`, `tokens_out`: what it took, where the server says so. `notes`: what makes it less than it seems.
    """

    output: str
    answer: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    notes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Try again in `delay` seconds."""

    delay: float
    failure: RequestFailed


@dataclass(frozen=True, slots=True)
class Discarded:
    """Never again, unless somebody asks for it. `answer` is what the model said where `parse` refused it.

    `notes`: what makes that answer less than it seems, should another `parse` take it.
    """

    failure: RequestFailed
    answer: str | None = None
    notes: frozenset[str] = frozenset()


Outcome: TypeAlias = Completed | RetryLater | Discarded
