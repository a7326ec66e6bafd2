"""What a person may look at while a run goes on. The engine writes it, whoever shows it reads it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import count
from orchestrator.domain.run import Counts, Plan

if TYPE_CHECKING:
    from orchestrator.domain.attempt import Completed
    from orchestrator.domain.waiting import Waiting

_WINDOW = 30.0  # seconds over which the rate is taken


class Phase(StrEnum):
    """Where a run is."""

    INGEST = "reading"
    HELD = "held"
    WAIT = "waiting"
    WAKE = "waking"
    WORK = "asking"
    LINGER = "keeping awake"
    PAUSE = "pausing"
    DELIVER = "delivering"
    DONE = "done"


_FOREMOST = (Phase.WORK, Phase.WAKE, Phase.LINGER, Phase.PAUSE)


@dataclass(slots=True, eq=False)
class Presence:
    """An endpoint while a run uses it. `said`: what it says of itself. `settled`: items, by its answers."""

    name: str
    phase: Phase = Phase.WAKE
    said: str = ""
    note: str = ""
    troubles: list[str] = field(default_factory=list)  # that are told although nobody looks on
    settled: int = 0
    waiting: Waiting | None = None  # where nothing is asked, and that takes seconds
    awake_since: float | None = None  # on the monotonic clock
    price_per_hour: float | None = None


@dataclass(slots=True)
class Progress:
    """Numbers of a run in this process. `asked`, `completed`, `discarded`, `retried` count what happened in it.

    `shared`: items among the completed and discarded that were not asked, since one with the same request was.
    """

    step: Phase = Phase.INGEST  # while no endpoint is used
    run: int | None = None
    plan: Plan = field(default_factory=Plan)
    hints: list[str] = field(default_factory=list)  # what else could be done with the items of the plan
    start: Counts = field(default_factory=Counts)  # as the work began
    completed: int = 0
    discarded: int = 0
    retried: int = 0
    asked: int = 0
    shared: int = 0
    tokens_in: int | None = None  # None until a server has said how many
    tokens_out: int | None = None
    note: str = ""
    waiting: Waiting | None = None  # with nothing awake
    present: list[Presence] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)  # how endpoints were left
    troubles: list[str] = field(default_factory=list)  # with endpoints, and with telling others how it ended
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def phase(self) -> Phase:
        """Where the run is: with several endpoints, where the foremost is."""
        phases = {presence.phase for presence in self.present}
        return next((phase for phase in _FOREMOST if phase in phases), self.step)

    @property
    def waits(self) -> list[Waiting]:
        """What is waited for: with nothing awake, or by endpoints that are kept awake."""
        awake = [presence.waiting for presence in self.present if presence.waiting is not None]
        return awake if self.waiting is None else [self.waiting, *awake]

    @property
    def total(self) -> int:
        """Items of the run."""
        return self.start.total

    @property
    def settled(self) -> int:
        """Items of the run that need nothing more."""
        return self.start.settled + self.completed + self.discarded

    @property
    def done(self) -> str:
        """` with 512 of 600 items done`, for the end of a run that is cut short; "" before it is known what it has."""
        return f" with {self.settled:,} of {count(self.total, 'item')} done" if self.total else ""

    def count_tokens(self, outcome: Completed) -> None:
        """An answer has come for which the server has said what it took."""
        if outcome.tokens_in is not None:
            self.tokens_in = (self.tokens_in or 0) + outcome.tokens_in
        if outcome.tokens_out is not None:
            self.tokens_out = (self.tokens_out or 0) + outcome.tokens_out

    def rate(self) -> float | None:
        """Items settled per second over the last half minute; None until that can be said."""
        now, settled = time.monotonic(), self.completed + self.discarded
        self._samples.append((now, settled))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (settled - before) / (now - then) if now - then >= 1.0 else None
