"""A model of the queue: which run is taken next. `test_queue_machine` compares the ledger with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import Busy, GaveWay
from orchestrator.domain.queue import LOADS_FOR, TURN_AFTER, next_try
from orchestrator.domain.run import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.domain.errors import RunStopped

GONE = (RunState.CANCELLED, RunState.SUPERSEDED)


@dataclass(slots=True)
class Modelled:
    """One run. `fits` is the source version that was read; "" before reading."""

    job: str
    endpoints: frozenset[str]
    due: float | None
    priority: int
    deadline: float | None
    after: dict[int, bool] = field(default_factory=dict)
    state: RunState = RunState.INGESTING
    holder: int | None = None
    held: bool = False
    tries: int = 0
    settled: int = 0
    settled_at_claim: int = 0
    delivered: bool = False
    read: str = ""
    begun: bool = False

    @property
    def row(self) -> tuple[Any, ...]:
        return (self.state, self.due, self.priority, self.holder, self.held, self.tries, self.delivered)

    def asks(self, daemons: Collection[int], since: float = inf) -> bool:
        """Whether the run occupies its endpoints: it has begun, or a daemon has claimed it since then."""
        loads = self.holder in daemons and (self.due or 0.0) <= since
        return self.holder is not None and self.due is not None and not self.state.ended and not loads

    @property
    def key_is_free(self) -> bool:
        """Whether another run may use its key."""
        over = self.holder is None and not (self.state is RunState.FINISHED and self.delivered)
        return self.due is None and (self.state in GONE or over)


def claimed(
    runs: Mapping[int, Modelled], awake: Collection[str], daemons: Collection[int], daemon: int, now: float
) -> int | None:
    """Claim the next run for a daemon and apply the changes. A run whose processes die repeatedly is given up."""
    while (number := _next(runs, awake, daemons, now)) is not None:
        run = runs[number]
        tries = 1 if run.settled > run.settled_at_claim else run.tries + 1
        wait = next_try(tries)
        if wait is not None:
            run.tries, run.settled_at_claim = tries, run.settled
            run.holder, run.due = daemon, now + wait
            return number
        run.state, run.due = (run.state if run.state is RunState.FINISHED else RunState.FAILED), None
    return None


def refused(number: int, runs: Mapping[int, Modelled], daemons: Collection[int]) -> type[RunStopped] | None:
    """Return why a claimed run does not begin: it left the queue, or a run that began meanwhile uses its endpoint."""
    if runs[number].due is None:
        return Busy
    others = [run for other, run in runs.items() if other != number]
    taken = any(one.asks(daemons) and one.endpoints & runs[number].endpoints for one in others)
    return GaveWay if taken else None


def _next(runs: Mapping[int, Modelled], awake: Collection[str], daemons: Collection[int], now: float) -> int | None:
    def turn(number: int) -> tuple[object, ...]:
        run = runs[number]
        soon = (run.due or 0.0) < now - TURN_AFTER or not run.endpoints.isdisjoint(awake)
        return -run.priority, not soon, run.deadline is None, run.deadline or 0.0, number

    return min((number for number, run in runs.items() if _free(run, runs, daemons, now)), key=turn, default=None)


def _free(run: Modelled, runs: Mapping[int, Modelled], daemons: Collection[int], now: float) -> bool:
    others = [other for other in runs.values() if other is not run]
    return (
        run.due is not None
        and run.due <= now
        and run.holder is None
        and not run.held
        and not any(_in_the_way(runs[number], any_end=any_end) for number, any_end in run.after.items())
        and not any(one.job == run.job and one.holder is not None and not one.delivered for one in others)
        and not any(one.asks(daemons, now - LOADS_FOR) and one.endpoints & run.endpoints for one in others)
    )


def _in_the_way(other: Modelled, *, any_end: bool) -> bool:
    """Whether a run that waits for this one has to keep waiting."""
    goes_on = (other.due is not None or other.holder is not None) and other.state not in GONE
    return (other.state is not RunState.FINISHED and not any_end) or (goes_on and not other.delivered)
