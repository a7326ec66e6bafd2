"""Rollouts: leases items, runs the user's function for each, and settles what it returns.

As many functions are open as keep the endpoints busy that are awake: what is bounded is requests in flight.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from orchestrator import exact_json
from orchestrator.domain.asks import FailedAsk, OpenAsk, RecordedAsk
from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.events import RolloutsIdle
from orchestrator.domain.waiting import WORTH_SAYING
from orchestrator.engine.asking.commits import Commits
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.leased_items import Leases, emit_settled, judge_error_rate, shared
from orchestrator.engine.asking.parse import written
from orchestrator.engine.rollouts.ask_queue import AskQueue
from orchestrator.engine.rollouts.asking import Asking
from orchestrator.engine.rollouts.blocking import named_if_blocking
from orchestrator.engine.rollouts.deadlines import Deadlines, RunningTime
from orchestrator.engine.rollouts.functions import Functions
from orchestrator.engine.rollouts.open_rollout import AskMaker, OpenRollout, row_of
from orchestrator.engine.rollouts.pending import Pending
from orchestrator.engine.rollouts.where import failure_of
from orchestrator.engine.tasks import task_group
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from orchestrator.domain.attempt import Outcome
    from orchestrator.domain.item import Item
    from orchestrator.engine.asking.work_queue import RunContext
    from orchestrator.engine.rollouts.deadlines import Deadline
    from orchestrator.job import Job
    from orchestrator.store.asks import Known

_FIRST = 64  # rollouts that are open before an endpoint is awake
_FOR_EACH = 8  # rollouts that may be open for each request that may be in flight
_ENDING = 2000  # rollouts that have returned and may wait for their commit
_RECALLED = 16_000_000  # bytes of earlier requests and answers that rollouts may share
_TOGETHER = 64  # items whose earlier asks are read at a time


@asynccontextmanager
async def open_rollouts(
    work: RunContext, job: Job, job_id: int, identity: Mapping[str, object], in_flight: InFlight
) -> AsyncIterator[Rollouts]:
    """Run rollouts and commit their outcomes while the block lasts; then cancel those that are open."""
    rollouts = Rollouts(work, job, job_id, identity, in_flight)
    await rollouts.recall()
    async with task_group() as helpers, named_if_blocking(rollouts.function):
        helpers.start_soon(rollouts.commits.keep_committing)
        helpers.start_soon(rollouts.commits.commit_the_rest)
        try:
            async with rollouts.functions.ended(), task_group() as keepers:
                keepers.start_soon(rollouts.keep_prepared)
                keepers.start_soon(rollouts.functions.keep)
                keepers.start_soon(rollouts.deadlines.keep)
                keepers.start_soon(rollouts.report_idle)
                for queue in rollouts.queues:
                    keepers.start_soon(queue.keep_ready)
                yield rollouts
                keepers.cancel_scope.cancel()
        finally:
            rollouts.commits.closed.set()
        helpers.cancel_scope.cancel()
    await work.store.items.release(work.process_id)


class Rollouts:
    """The open rollouts of this process, and a queue of asks for each route."""

    def __init__(
        self, work: RunContext, job: Job, job_id: int, identity: Mapping[str, Any], in_flight: InFlight
    ) -> None:
        if job.rollout is None:
            raise TypeError(f"job {job.name!r} has no rollout")
        self.work = work
        self.job_id = job_id
        self.function: Callable[[Any, Any], Awaitable[object]] = job.rollout
        self.commits = Commits(self._write, self._judge, work.progress)
        self._queues = {route.name: AskQueue(self, route, InFlight(in_flight)) for route in job.routes}
        self._maker = AskMaker(job, identity)
        self._leases = Leases(work)
        self._leased: deque[Item] = deque()
        self._prepared: deque[tuple[Item, Known]] = deque()  # leased, with their earlier asks
        self._awaited: dict[int, tuple[OpenRollout, Pending]] = {}  # by the keys of asks
        self._open = 0  # rollouts whose function has not returned
        self._running = 0  # of these, those that wait for no ask
        self._beginning = 0  # of these, those whose function was not called yet
        self._opens_soon = False
        self.functions = Functions(self._leave)
        self._asked = 0
        self._ending = 0  # rollouts whose function has returned, and whose outcome is not on disk
        self._settled = 0
        self._most_open = _FIRST
        self._more = anyio.Event()  # set when more items may be prepared
        self.deadlines = Deadlines(self._matters, self._time_is_over)
        self._nothing_is_woken = RunningTime()  # runs while no ask waits for an endpoint that is not awake
        self._nothing_is_woken.run(runs=True)

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    def queues(self) -> list[AskQueue]:
        """The queues of all routes."""
        return list(self._queues.values())

    @property
    def finished(self) -> bool:
        """Whether nothing is left that this process could do."""
        return self._leases.exhausted and not self._leases

    def is_stuck(self, but: AskQueue) -> bool:
        """Whether no rollout can ask anything more before an ask in this queue is answered."""
        if self._running or self._can_open:
            return False
        return not any(queue.has_work for queue in self._queues.values() if queue is not but)

    def left_for(self, queue: AskQueue) -> int:
        """About how many asks the unsettled items will make of a route, if they ask as the settled ones did."""
        left = self.work.progress.total - self.work.progress.settled
        return round(left * queue.settled / self._settled) if self._settled else left

    def is_awaited(self, key: int) -> bool:
        """Whether a rollout still waits for this ask."""
        return key in self._awaited

    @property
    def _can_open(self) -> bool:
        exhausted = self._leases.exhausted and not (self._leased or self._prepared)
        ends = self.work.stop.requested or self.functions.ending
        return not (exhausted or ends or self._open >= self._most_open)

    # -- opening ------------------------------------------------------------------------------------------------------

    def demand_changed(self) -> None:
        """Keep as many rollouts open as the endpoints that are awake need now."""
        self.commits.most = sum(queue.most for queue in self._queues.values())
        self._most_open = max(_FIRST, _FOR_EACH * self.commits.most)
        self.note_waking()
        self.deadlines.clocks_changed()
        self.ask_for_more()

    def note_waking(self) -> None:
        """Let the time of rollouts stand still while asks of a route wait for an endpoint that is not awake."""
        stood = not self._nothing_is_woken.runs
        self._nothing_is_woken.run(runs=not any(queue.is_being_woken for queue in self._queues.values()))
        if stood and self._nothing_is_woken.runs:
            self.deadlines.clocks_changed()

    def ask_for_more(self) -> None:
        """Open more rollouts soon, if there is room: once for all that happens now, since every ask sent wants more."""
        if not self._opens_soon:
            self._opens_soon = True
            asyncio.get_running_loop().call_soon(self._open_more)

    def _open_more(self) -> None:
        self._opens_soon = False
        if self._prepared and self._can_open and (room := min(self._room, len(self._prepared))) > 0:
            for _ in range(room):
                item, known = self._prepared.popleft()
                rollout = OpenRollout(item, known, self.work.policy.max_asks)
                self._open += 1
                self._running += 1
                self._beginning += 1
                self.functions.begin(rollout, self._run(rollout))
            self.ask_for_more()  # once they have asked, or do something else first
        if not self._more.is_set() and self._may_prepare:
            self._more.set()

    @property
    def _room(self) -> int:
        """How many rollouts to open now."""
        wanted = max([queue.shortage for queue in self._queues.values()]) if self.commits.most else _FIRST - self._open
        return min(wanted - self._beginning, self._most_open - self._open, _ENDING - self._ending)

    @property
    def _may_prepare(self) -> bool:
        return len(self._prepared) < _TOGETHER and (bool(self._leased) or not self._leases.exhausted)

    async def recall(self) -> None:
        """Remember the latest answers of earlier processes, shifts and runs, which equal asks share."""
        for late in await self.work.store.asks.lately(self.job_id, _RECALLED):
            if (hashed := self._maker.recalled(late)) is not None:
                self._queues[late.endpoint or ""].remember((hashed, late.nth), late.answer)

    async def keep_prepared(self) -> None:
        """Keep items at hand, with their earlier asks, so that their rollouts can be opened at once."""
        while not self.work.stop.requested:
            self._more = anyio.Event()
            if self._may_prepare:
                await self._prepare()
                self.ask_for_more()
                continue
            with self.work.stop.while_running():
                await self._more.wait()

    async def _prepare(self) -> None:
        """Lease items, and read what the ledger has of their asks."""
        if not self._leased:
            for part in await self._leases.more(1):
                self._leased += part.items
            if not self._leased:
                self.notify()
        some = [self._leased.popleft() for _ in range(min(_TOGETHER, len(self._leased)))]
        known = await self.work.store.asks.of(self.job_id, [item.id for item in some]) if some else {}
        self._prepared += [(item, known.get(item.id, {})) for item in some]

    async def _run(self, rollout: OpenRollout) -> None:
        """Run the function of a rollout, and settle its item by what it returns or raises."""
        self._beginning -= 1
        try:
            returned = await self.function(row_of(rollout.item.request), Asking(self, rollout))
            outcome: Outcome = rollout.output(_in_json("the rollout", returned))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also exit(), and the cancellation of something of its own
            why = error if rollout.spoiled is None else rollout.spoiled.with_traceback(error.__traceback__)
            outcome = Discarded(failure_of(why))
        if not rollout.left:
            self._end(rollout, outcome)

    def _leave(self, rollout: OpenRollout) -> None:
        """End a rollout whose function goes on although it was cancelled."""
        rollout.left = True
        self._end(rollout, None)

    def _end(self, rollout: OpenRollout, outcome: Outcome | None) -> None:
        """Forget a rollout, and settle its item, unless the function was cancelled because the run ends."""
        self._open -= 1
        self._running -= not rollout.asks
        rollout.ended = True
        for ask in rollout.asks.values():
            del self._awaited[ask.key]
        for queue in {self._queue_of(ask) for ask in rollout.asks.values()}:
            queue.abandon([ask for ask in rollout.asks.values() if self._queue_of(ask) is queue])
        self.ask_for_more()
        if rollout.over and (rollout.spoiled is None or not isinstance(outcome, Discarded)):
            outcome = None if rollout.spoiled is None else Discarded(rollout.spoiled)
        if outcome is not None:
            self._ending += 1
            self.commits.hand_in(Settlement(rollout.item, outcome, time.monotonic() - rollout.begun))

    # -- asking -------------------------------------------------------------------------------------------------------

    def begin(
        self, rollout: OpenRollout, request: object, to: str | None, step: str | None, deadline: float | None
    ) -> Pending:
        """Return the answer to a request: an earlier one, or that of an endpoint, which is asked now."""
        ask = self._maker.ask(rollout, request, to, step)
        pending = Pending()
        if isinstance(ask, RecordedAsk):
            rollout.count(ask)
            pending.settle(ask)
            return pending
        if deadline is not None:
            ask.deadline, ask.shares = deadline, None  # its deadline concerns no other rollout
            self._add_deadline(deadline, self._queue_of(ask).awake, rollout, ask)
        self._running -= not rollout.asks
        self._asked += 1
        rollout.asks[ask.key] = ask
        self._awaited[ask.key] = rollout, pending
        self._queue_of(ask).add(ask)
        return pending

    async def call(
        self,
        rollout: OpenRollout,
        function: Callable[..., Awaitable[Any]],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> Any:
        """Return the recorded result of a function; otherwise call it, and record its result."""
        call = self._maker.call(rollout, function, args, kwargs)
        if isinstance(call, RecordedAsk):
            return exact_json.loads(call.answer or "null")
        begun = time.monotonic()
        result = _in_json(f"{call.step}()", await _awaitable(call.step, function(*args, **kwargs)))
        await self.commits.add([Settlement(call, Completed(result), time.monotonic() - begun)])
        return exact_json.loads(result)

    def _queue_of(self, ask: OpenAsk) -> AskQueue:
        return self._queues[ask.endpoint or ""]

    # -- settling -----------------------------------------------------------------------------------------------------

    async def _write(self, settlements: list[Settlement]) -> None:
        """Commit outcomes of asks and of items; then let the rollouts continue that wait for them."""
        asks = [(one.item, one) for one in settlements if isinstance(one.item, OpenAsk)]
        items = [one for one in settlements if not isinstance(one.item, OpenAsk)]
        now = time.time()
        for ask, settlement in asks:
            if not isinstance(settlement.outcome, Completed):
                _note_failure(ask, settlement.outcome, settlement.seconds, now)
        close = self._leases.count_down(one.item for one in items)
        await self.work.store.asks.settle(self.work.run_id, self.job_id, asks, items, close)
        moment = time.monotonic()  # asks of one batch are asked again together
        for ask, settlement in asks:
            self._after(ask, settlement.outcome, moment)
        if items:
            self._ending -= len(items)
            self._settled += len(items)
            emit_settled(self.work, [_without_tokens(one) for one in items])
            self.notify()
            self.ask_for_more()

    def _after(self, ask: OpenAsk, outcome: Outcome, moment: float) -> None:
        """Go on after the outcome of an ask was committed."""
        if ask.endpoint is None:
            return
        if isinstance(outcome, Completed | Discarded) and (awaited := self._awaited.pop(ask.key, None)) is not None:
            rollout, pending = awaited
            del rollout.asks[ask.key]
            self._running += not rollout.asks
            if isinstance(outcome, Completed):
                rollout.count(outcome)
                pending.answer(outcome.output)
            else:
                pending.fail(outcome.failure)
        self._queue_of(ask).after(ask, outcome, moment)

    def _judge(self) -> None:
        judge_error_rate(self.work.progress, self.work.policy)

    def notify(self) -> None:
        """Wake the consumers of all routes."""
        for queue in self._queues.values():
            queue.notify()

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def report_idle(self) -> None:
        """Tell listeners if rollouts neither ask nor return while nothing else is asked."""
        asked, reported = -1, RolloutsIdle(0)
        try:
            while True:
                found = RolloutsIdle(0)
                if not self._awaited and self.functions and self._asked == asked:
                    found = RolloutsIdle(len(self.functions), min(one.item.id for one in self.functions))
                if found != reported:
                    self.work.events.emit(found)
                asked, reported = self._asked, found
                await anyio.sleep(WORTH_SAYING)
        finally:
            if reported.rollouts:
                self.work.events.emit(RolloutsIdle(0))

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def note_sent(self, key: int) -> None:
        """Begin the item's time when the first of its requests is sent."""
        timeout = self.work.policy.item_timeout
        if timeout is not None and (awaited := self._awaited.get(key)) is not None and not awaited[0].sent:
            awaited[0].sent = True
            self._add_deadline(timeout, self._nothing_is_woken, awaited[0], None)

    def _add_deadline(self, seconds: float, clock: RunningTime, rollout: OpenRollout, ask: OpenAsk | None) -> None:
        self.deadlines.add(seconds, clock, rollout, ask, most=len(self._awaited) + self._open)

    def _matters(self, deadline: Deadline) -> bool:
        """Whether a deadline still is one: nothing has ended that it concerns."""
        return not deadline.rollout.ended and (deadline.ask is None or deadline.ask.key in self._awaited)

    async def _time_is_over(self, deadline: Deadline) -> None:
        if (ask := deadline.ask) is None:
            timeout = f"policy.item_timeout={self.work.policy.item_timeout:g}"
            deadline.rollout.end_early(RequestFailed(FailureKind.TIMEOUT, f"its rollout took longer than {timeout} s"))
        else:
            failure = RequestFailed(
                FailureKind.TIMEOUT, f"it was not answered within its deadline of {ask.deadline:g} s"
            )
            seconds = self._queue_of(ask).in_flight.give_up({ask.key})
            await self._queue_of(ask).settle([Settlement(ask, Discarded(failure), seconds)])


def _in_json(what: str, returned: object) -> str:
    try:
        return written(returned)
    except TypeError as error:
        hint = ", which has to be awaited" if str(error).endswith((": coroutine", ": Pending")) else ""
        raise TypeError(f"{what} returned a value without a JSON form: {error}{hint}") from error


def _awaitable(name: str | None, returned: Awaitable[Any]) -> Awaitable[Any]:
    if not inspect.isawaitable(returned):
        raise TypeError(f"ask.call() needs an async function, and {name} is none: write `async def`")
    return returned


def _note_failure(ask: OpenAsk, outcome: Discarded | RetryLater, seconds: float, now: float) -> None:
    """Add a failed attempt to those that the ledger keeps of the ask."""
    failure, again = outcome.failure, now + outcome.delay if isinstance(outcome, RetryLater) else None
    failed = FailedAsk(failure.kind, failure.status, failure.message, seconds, now, again)
    ask.failed = [*ask.failed, failed]


def _without_tokens(settlement: Settlement) -> Settlement:
    """Return the settlement of an item whose tokens were counted with its asks."""
    if isinstance(settlement.outcome, Completed):
        return Settlement(settlement.item, shared(settlement.outcome), settlement.seconds)
    return settlement
