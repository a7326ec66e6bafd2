"""Asks: the requests of a rollout, each an item of its own to whatever asks an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import Item


@dataclass(frozen=True, slots=True)
class FailedAsk:
    """A failed attempt of an ask. `at`, `available_at`: seconds since 1970 UTC; it is not asked again before then."""

    kind: FailureKind
    status: int | None
    message: str
    seconds: float
    at: float
    available_at: float | None


@dataclass(frozen=True, slots=True)
class RecordedAsk:
    """An ask as the ledger has it. `outcome`: None if it failed and is to be asked again.

    `answer`: JSON, if it is completed. `attempts`: those made so far.
    """

    outcome: Literal["completed", "discarded"] | None
    answer: str | None
    attempts: int
    tokens_in: int | None
    tokens_out: int | None
    notes: frozenset[str]
    failures: tuple[FailedAsk, ...]

    @property
    def failure(self) -> RequestFailed:
        """Why it was discarded."""
        last = self.failures[-1]
        return RequestFailed(last.kind, last.message, status=last.status)


@dataclass(slots=True, eq=False)
class OpenAsk(Item):
    """One ask of an open rollout. As an item, its `key` numbers it in this process.

    It is known by its rollout's item, the `hash` of what is asked of whom, and `nth`: how many equal asks of the same
    item came before it. `number`: its place in the rollout, from 1. `endpoint`: the name under which the rollout asks;
    None if this is a call of the user's own function. `failed`: its failed attempts. `shares`: the hash under which
    other rollouts share its answer; None if none does. `deadline`: the seconds in which it must be answered, if the
    rollout has set any.
    """

    rollout: str = ""
    hash: bytes = b""
    nth: int = 0
    number: int = 0
    endpoint: str | None = None
    step: str | None = None
    failed: list[FailedAsk] = field(default_factory=list)
    shares: bytes | None = None
    deadline: float | None = None
