"""Concurrency: how many requests are in flight at one endpoint, and of how many items; learned from the answers."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.events import BatchSizeChanged
from orchestrator.domain.limiter import Limiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.engine_metrics import EngineSample
    from orchestrator.domain.item import Item
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.throttle import Throttle
    from orchestrator.ports import DataPlane, EventListener
    from orchestrator.store.items import Settlement

UNPROVEN_LIMIT = (
    4  # requests in flight until the first success: a wrong wire or a wrong `parse` should cost only seconds
)
_SPOILS = frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.CRASHED})
_TOO_LARGE = 2  # batches that failed as a whole and succeeded in halves, after which their size is blamed


class Concurrency:
    """The concurrency of one connection. `in_flight` counts requests until their outcome is committed."""

    def __init__(
        self, policy: Policy, model: DataPlane, effort: Effort, throttle: Throttle, events: EventListener
    ) -> None:
        self._policy = policy
        self._events = events
        self._model = model
        self._effort = effort
        self._throttle = throttle
        self._limiter = effort.limiter
        self._sizer = effort.sizer if model.max_in_flight is None else None  # our own worker cuts its batches itself
        self._limiter_since = -math.inf  # it learns only from requests that began later
        self._refused = False  # whether the limiter is there because fewer are taken than the policy wants
        self._too_large = 0
        self._too_large_at = 0.0
        self.in_flight = 0
        self.proven = False  # whether an item has gone all the way
        self.limits = model.limits  # of one request; the server may say that it takes fewer items
        if self._sizer is not None:
            self._sizer.cap(model.limits.items)
            self._set_size(self._sizer.size, "best throughput")

    # -- how many requests --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """How many requests should be in flight once an answer has shown that they succeed."""
        ordered = self._effort.controls.concurrency or self._policy.concurrency
        if ordered != "auto":
            wanted = max(1, round(ordered * self._effort.weight))
            if self._model.max_in_flight is None:  # our own worker says how many it can use
                wanted = self._effort.share.of(self._effort.presence, wanted)
            if self._refused and self._limiter is not None:
                wanted = min(wanted, self._limiter.limit)
        else:
            wanted = UNPROVEN_LIMIT if self.sizing or self._limiter is None else self._limiter.limit
        return self._effort.machine.allows(min(wanted, self._model.max_in_flight or wanted), self._effort.presence)

    @property
    def limited_by(self) -> str:
        """What limits the number of requests in flight, in words for the user."""
        if self._effort.controls.concurrency:
            return "tune"
        if self.sizing:
            return "batch size is being found"
        return "policy" if self._limiter is None else "refusals" if self._refused else "limiter"

    def has_place(self, wanted: int) -> bool:
        """Whether one more request may be in flight now, if `wanted` are wanted."""
        if self._throttle.cooldown.probing:
            return self.in_flight < 1
        return self.in_flight < (wanted if self.proven else min(UNPROVEN_LIMIT, wanted))

    def begin(self) -> float:
        """Count a request that goes out; return the moment."""
        now = time.monotonic()
        self.in_flight += 1
        if self._limiter is not None:
            self._limiter.begin(now)
        return now

    def end(self, begun: float, settlements: list[Settlement]) -> None:
        """Count a request that has ended with these settlements; without any, it brought no answer."""
        self.in_flight -= 1
        if self._limiter is not None and begun > self._limiter_since:
            self._teach(self._limiter, begun, settlements)
        elif any(_is_refused(one) for one in settlements) and self._throttle.cooldown.often:
            self._limiter = Limiter(UNPROVEN_LIMIT, most=max(UNPROVEN_LIMIT, self.wanted))
            self._refused, self._limiter_since = True, time.monotonic()

    def _teach(self, limiter: Limiter, begun: float, settlements: list[Settlement]) -> None:
        """Tell the limiter how a request went. Work is counted in bytes, since batches come sorted by length."""
        now = time.monotonic()
        failures = [one.outcome.failure for one in settlements if not isinstance(one.outcome, Completed)]
        refusals = [failure for failure in failures if failure.kind is FailureKind.RATE_LIMITED]
        if refusals and self._throttle.cooldown.often:
            wait = max(failure.retry_after or 0.0 for failure in refusals)
            limiter.reject(now, begun, wait, self._throttle.crowd)
        elif refusals or not settlements or any(failure.kind in _SPOILS for failure in failures):
            limiter.fail(now, begun)
        else:
            limiter.end(now, begun, sum(len(one.item.request) for one in settlements))

    @property
    def learns(self) -> bool:
        """Whether the server's own metrics are of use."""
        return self._limiter is not None

    def observe(self, sample: EngineSample) -> None:
        """Pass the server's metrics to the limiter."""
        if self._limiter is not None:
            self._limiter.observe(time.monotonic(), sample)

    # -- of how many items --------------------------------------------------------------------------------------------

    @property
    def sizing(self) -> bool:
        """Whether the best batch size is not known yet."""
        return self._sizer is not None and not self._sizer.settled

    def begin_batch(self) -> float:
        """Count a batch that is asked; return the moment."""
        if self._sizer is not None:
            self._sizer.begin()
        return time.monotonic()

    def end_batch(self, batch: Sequence[Item], begun: float, *, answered: bool) -> None:
        """Record that a batch has been answered or has failed."""
        if self._sizer is not None:
            work = sum(len(item.request) for item in batch) if answered else 0
            self._sizer.end(len(batch), work, time.monotonic() - begun)
            self._set_size(self._sizer.size, "best throughput")

    def cap(self, most: int) -> None:
        """Limit batches to the largest size that the server accepts."""
        size = min(self.limits.items, most)
        if self._sizer is not None:
            self._sizer.cap(most)
            size = self._sizer.size
        self._set_size(size, "the server accepts no more")

    def _set_size(self, size: int, why: str) -> None:
        if size != self.limits.items:
            self._events.emit(BatchSizeChanged(self._effort.presence.name, self.limits.items, size, why))
            self.limits = replace(self.limits, items=size)

    def went_well(self, batch: Sequence[Item]) -> None:
        """Record that a batch succeeded as a whole, so batches of this size are not too large."""
        if len(batch) == self.limits.items:
            self._too_large = 0

    def went_well_in_parts(self, size: int, begun: float) -> None:
        """Record that a batch failed as a whole and succeeded in parts of this size; the second time, blame its size.

        A batch that failed together with one that was counted is not counted again: it may be the same passing problem.
        """
        if begun <= self._too_large_at:
            return
        self._too_large += 1
        self._too_large_at = time.monotonic()
        if self._too_large == _TOO_LARGE:
            self._too_large = 0
            self.cap(size)


def _is_refused(settlement: Settlement) -> bool:
    outcome = settlement.outcome
    return not isinstance(outcome, Completed) and outcome.failure.kind is FailureKind.RATE_LIMITED
