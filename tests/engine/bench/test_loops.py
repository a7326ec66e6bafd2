"""Open and closed loops over data planes of their own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.batching import Limits
from orchestrator.domain.errors import EndpointFailed, EndpointLost, FailureKind, RequestFailed
from orchestrator.domain.load import Arrivals, OpenLoop
from orchestrator.domain.load_tally import LoadCourse, LoadTally
from orchestrator.engine.bench.loops import ClosedLoops, open_loop, until_given_up
from orchestrator.engine.bench.sender import Sender
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from tests.engine.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.ports import Again

EVENLY = OpenLoop(100, Arrivals.UNIFORM)


@pytest.fixture(autouse=True)
async def clocks() -> AsyncIterator[None]:
    with virtual_time(asyncio.get_running_loop()):
        yield


class Plane:
    """A data plane that takes some seconds for each answer, or raises."""

    max_in_flight = None
    limits = Limits(1, None)
    quiet_until = 0.0

    def __init__(self, seconds: float, failure: Exception | None = None) -> None:
        self.seconds = seconds
        self.failure = failure
        self.asked: list[bytes] = []

    async def metrics(self) -> str | None:
        return None

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        del again
        self.asked += requests
        await anyio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return ["fine" for _ in requests]


class Stalling(Plane):
    """Answers in ten milliseconds, but nothing from one moment to another, in seconds since it was made."""

    def __init__(self, since: float, until: float) -> None:
        super().__init__(0.01)
        self.since, self.until = (time.monotonic() + moment for moment in (since, until))

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        answers = await super().ask(requests, again)
        if self.since <= time.monotonic() < self.until:
            await anyio.sleep(self.until - time.monotonic())
        return answers


def sender(*planes: Plane, breaker: int = 20) -> Sender:
    found = Sender(planes, [b'"a"', b'"b"', b'"c"'], 1, breaker)
    found.count_in(LoadTally(time.monotonic()))
    found.course = LoadCourse(time.monotonic(), 1.0)
    return found


async def test_an_open_loop_goes_on_sending_while_nothing_is_answered() -> None:
    busy = sender(Plane(60.0))
    await open_loop(busy, EVENLY, 0.3, None, 0.0, Stop())
    assert busy.tally.planned == busy.tally.sent == busy.tally.cut_off == 30
    assert busy.tally.most_in_flight == 30
    assert busy.tally.waited_from_arrival.longest >= 0.3


async def test_a_stall_is_in_the_percentiles_of_an_open_loop_and_hardly_in_those_of_a_closed_one() -> None:
    opened, closed = (sender(Stalling(since=2.0, until=4.0)) for _ in range(2))
    opened.course = LoadCourse(time.monotonic(), 10.0)

    async def lead(loops: ClosedLoops) -> None:
        loops.have(1)
        await anyio.sleep(10.0)

    async with task_group() as group:
        group.start_soon(open_loop, opened, EVENLY, 10.0, None, 10.0, Stop())
        group.start_soon(ClosedLoops(closed, Stop()).run, 10.0, lead)
    in_open, in_closed = opened.tally.from_arrival, closed.tally.from_arrival
    assert in_open.longest == pytest.approx(2.0, abs=0.02)
    assert in_open.percentile(90) == pytest.approx(1.0, abs=0.02)  # of ten seconds of arrivals, two waited
    assert in_closed.longest > 1.9
    assert in_closed.percentile(90) == pytest.approx(0.01, rel=0.1)
    assert [part.since for part in opened.course.slices if (part.latency.percentile(99) or 0.0) > 0.9] == [2.0, 3.0]


async def test_arrivals_without_a_place_wait_for_one_and_those_that_get_none_are_counted() -> None:
    full = sender(Plane(0.1))
    await open_loop(full, EVENLY, 0.5, 2, 10.0, Stop())
    tally = full.tally
    assert tally.planned == 50 == tally.sent + tally.unsent
    assert tally.most_in_flight == 2
    assert tally.held_back > 0
    assert tally.unsent > 0
    assert tally.from_arrival.longest > tally.from_sending.longest
    assert tally.waited_from_arrival.number == tally.unsent


async def test_requests_are_sent_in_turn_and_to_the_server_that_has_the_fewest() -> None:
    first, second = Plane(0.01), Plane(0.01)

    async def lead(loops: ClosedLoops) -> None:
        loops.have(4)
        await anyio.sleep(0.2)

    both = sender(first, second)
    await ClosedLoops(both, Stop()).run(10.0, lead)
    assert both.tally.answered == len(first.asked) + len(second.asked)
    assert abs(len(first.asked) - len(second.asked)) <= 8
    assert both.tally.most_in_flight == 4
    assert {*first.asked, *second.asked} == {b'"a"', b'"b"', b'"c"'}


async def test_surplus_clients_end_with_their_answer() -> None:
    plane = Plane(0.02)
    at_last = list[int]()

    async def lead(loops: ClosedLoops) -> None:
        loops.have(8)
        await anyio.sleep(0.1)
        loops.have(3)
        await anyio.sleep(0.2)
        at_last.append(some.in_flight)

    some = sender(plane)
    await ClosedLoops(some, Stop()).run(10.0, lead)
    assert at_last[0] <= 3
    assert some.in_flight == 0


async def test_a_stop_ends_sending_and_lets_answers_arrive() -> None:
    stop, busy = Stop(), sender(Plane(0.2))
    async with task_group() as group:
        group.start_soon(open_loop, busy, EVENLY, 60.0, None, 10.0, stop)
        while busy.in_flight < 3:
            await anyio.sleep(0.01)
        stop.drain()
    assert busy.tally.answered == busy.tally.sent
    assert busy.tally.cut_off == 0


@pytest.mark.parametrize(
    ("failure", "given_up"),
    [
        (EndpointLost("it is gone"), True),
        (RequestFailed(FailureKind.CONNECTION, "broken"), True),
        (RequestFailed(FailureKind.RATE_LIMITED, "slow down", status=429), False),
        (RequestFailed(FailureKind.UNAVAILABLE, "full", status=503), False),
    ],
)
async def test_failures_that_no_load_explains_end_it(failure: Exception, given_up: bool) -> None:
    stop, failing = Stop(), sender(Plane(0.001, failure), breaker=5)

    async def lead(loops: ClosedLoops) -> None:
        loops.have(1)
        await anyio.sleep(1.0)

    async with task_group() as watchers:
        watchers.start_soon(until_given_up, failing, stop)
        await ClosedLoops(failing, stop).run(10.0, lead)
        watchers.cancel_scope.cancel()
    assert (failing.given_up is not None) == given_up
    assert failing.tally.failures >= 5


async def test_the_first_request_says_what_is_wrong() -> None:
    plane = Plane(0.0, RequestFailed(FailureKind.REJECTED, "no such field", status=422))
    with pytest.raises(EndpointFailed, match="the first request failed, so no more were sent: no such field"):
        await sender(plane).prove()
    assert len(plane.asked) == 1
