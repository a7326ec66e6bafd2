"""The outcomes of an attempt, as a closed union."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from orchestrator.domain.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class Completed:
    """The item has its output.

    `output` is what is delivered; `answer` is the model's own answer if `parse` made the output from it. Both are JSON
    text. `tokens_in`, `tokens_out`: the tokens used, if the server reports them. `notes`: flaws of the answer, as
    `Note` lists them.
    """

    output: str
    answer: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    notes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The attempt failed, and the next one may start in `delay` seconds."""

    delay: float
    failure: RequestFailed


@dataclass(frozen=True, slots=True)
class Discarded:
    """The item failed for good, unless the user retries it.

    `answer` is the model's answer if `parse` refused it; `notes` are its flaws, in case another `parse` accepts it.
    """

    failure: RequestFailed
    answer: str | None = None
    notes: frozenset[str] = frozenset()


Outcome: TypeAlias = Completed | RetryLater | Discarded
