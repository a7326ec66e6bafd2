"""Work queue: items that wait to be asked, and what consumers want of them."""

from __future__ import annotations

import heapq
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.batching import Limits, ReadyItems
from orchestrator.domain.phrases import count
from orchestrator.domain.verdict import asked_alone
from orchestrator.domain.waiting import after_failure
from orchestrator.engine.asking.commits import nothing
from orchestrator.engine.change import Change
from orchestrator.engine.events import UNHEARD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.item import Item
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.asking.canary import Canary
    from orchestrator.engine.asking.commits import OnSettled
    from orchestrator.engine.asking.parse import Parse
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.stop import Stop
    from orchestrator.ports import EventListener
    from orchestrator.store import Store
    from orchestrator.store.items import Settlement


@dataclass(frozen=True, slots=True)
class RunContext:
    """What one run asks, and how."""

    store: Store
    run_id: int
    process_id: int
    parse: Parse
    policy: Policy
    progress: Progress
    stop: Stop
    events: EventListener = UNHEARD
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What a consumer wants to find ready: a number of requests, each of a number of items."""

    requests: int
    items: int


class WorkQueue(ABC):
    """Hands out batches, and takes them back. Knows no endpoint, and not where its items come from."""

    def __init__(self, work: RunContext) -> None:
        self.work = work
        self.suspects: set[int] = set()  # items that may have caused a crash: asked alone, before all others
        self._demands: dict[object, Demand] = {}  # of each consumer
        self._low_water = 0  # items: if no more than this many are ready, more are needed
        self._ready = ReadyItems(work.policy.order)
        self._single: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._changed = Change()
        self._refill = anyio.Event()  # set when more items may be needed

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing is left that this process could do."""

    @property
    @abstractmethod
    def cleared(self) -> bool:
        """Whether all items that are left are in flight."""

    @property
    @abstractmethod
    def left(self) -> int:
        """Items that are not settled, as far as that is known."""

    @property
    def what_is_left(self) -> str:
        """Return for example `12 items left`."""
        return f"{count(self.left, 'item')} left"

    @property
    def idle_since(self) -> float | None:
        """Since when, on the monotonic clock, nothing was ready although more may come at any time; None if not."""
        return None

    @property
    def stuck(self) -> bool:
        """Whether nothing more will be asked of these consumers, although something is left."""
        return False

    def gives_up(self, items: Iterable[Item]) -> bool:
        """Whether a request for these items may have to be cut short."""
        del items
        return self.work.policy.hedge

    @property
    def has_suspects(self) -> bool:
        """Whether an item waits to be asked alone."""
        return bool(self._alone)

    @property
    def waits(self) -> bool:
        """Whether an item waits to be asked, now or later."""
        return bool(self._ready or self._single or self._alone or self._later)

    def ready_at(self, now: float) -> tuple[float, str]:
        """Return when an item can be asked, on the monotonic clock, and the reason if that is later than now."""
        if self._ready or self._single or self._alone or self._expects_more or not self._later:
            return now, ""
        at, _, item = self._later[0]
        return at, after_failure(item.failures[-1], None) if item.failures else ""

    @property
    @abstractmethod
    def _expects_more(self) -> bool:
        """Whether more items may be ready in a moment."""

    async def changed(self) -> None:
        """Return when something may have changed for consumers."""
        await self._changed.next()

    def notify(self) -> None:
        """Wake all consumers, because something has changed for them."""
        self._changed.notify()

    def set_demand(self, consumer: object, demand: Demand | None) -> None:
        """Keep this demand ready for a consumer from now on; None removes the consumer."""
        if demand is None:
            self._demands.pop(consumer, None)
        else:
            self._demands[consumer] = demand
        self._low_water = sum(one.requests * one.items for one in self._demands.values())
        self._refill.set()

    @property
    def most(self) -> int:
        """Requests that may be in flight."""
        return sum(one.requests for one in self._demands.values())

    # -- handing out --------------------------------------------------------------------------------------------------

    def take(self, limits: Limits, *, sample: bool = False) -> list[Item]:
        """Return the next batch; empty if nothing is ready."""
        batch = [self._single.popleft()] if self._single else self._ready.take(limits, sample=sample)
        if batch and len(self._ready) <= self._low_water:
            self._ask_for_more()
            if self.cleared:
                self.notify()
        return batch

    def _ask_for_more(self) -> None:
        """Have more items made ready."""
        self._refill.set()

    def take_suspect(self) -> Item:
        """Return the next item that must be asked alone."""
        return self._alone.popleft()

    def requeue(self, items: Iterable[Item]) -> None:
        """Put back items that were taken and not answered; no attempt is counted."""
        self._offer([item for item in items if self._is_open(item)])

    @abstractmethod
    def _is_open(self, item: Item) -> bool:
        """Whether the item still has to be settled by this process."""

    def _offer(self, items: list[Item]) -> None:
        now, together = time.monotonic(), []
        for item in items:
            if item.ready_at > now:
                heapq.heappush(self._later, (item.ready_at, item.key, item))
            elif item.key in self.suspects:
                self._alone.append(item)
            elif item.failures and asked_alone(item.failures):
                self._single.append(item)
            else:
                together.append(item)
        self._ready.add(together)
        self.notify()

    # -- later --------------------------------------------------------------------------------------------------------

    def _ask_later(self, item: Item, failure: RequestFailed, at: float) -> None:
        """Count a failed attempt of an item, which is asked again at a moment on the monotonic clock."""
        item.attempt += 1
        item.failures.append(failure.kind)
        item.ready_at = at
        heapq.heappush(self._later, (item.ready_at, item.key, item))
        self._refill.set()

    def _requeue_due(self) -> float | None:
        """Put back items whose time has come; return the seconds until the next one's."""
        now, due = time.monotonic(), []
        while self._later and self._later[0][0] <= now:
            due.append(heapq.heappop(self._later)[2])
        self.requeue(due)
        return self._later[0][0] - now if self._later else None

    # -- settling -----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def settle(self, settlements: list[Settlement], on_settled: OnSettled = nothing) -> None:
        """Return when these settlements and those of items with the same requests are on disk.

        `on_settled` is called with all of them.
        """

    @abstractmethod
    async def answered(self, most: int) -> list[bytes]:
        """Return up to `most` requests that earlier processes got answered."""
