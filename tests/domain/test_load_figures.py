from __future__ import annotations

import pytest

from orchestrator.domain.engine_metrics import EngineSample
from orchestrator.domain.load import Objective
from orchestrator.domain.load_figures import LoadFigures, LoopTime, ServerSide, figures_of, verdict_on
from orchestrator.domain.load_tally import LoadCourse, LoadTally, Sent
from orchestrator.domain.percentiles import PercentileHistogram


def idle() -> LoopTime:
    return LoopTime(PercentileHistogram(), 10.0, 0.1, 0.1)


def answered(tally: LoadTally, *seconds: float, waited: float = 0.0) -> None:
    """Count answers, each to a request that was sent so long after it was planned."""
    for taken in seconds:
        request = Sent(tally.begun, tally.begun + waited)
        tally.planned += 1
        tally.send(request)
        tally.answer(request, request.at + taken, 1, (3, None))


def figures(tally: LoadTally, now: float, *objectives: Objective, loop: LoopTime | None = None) -> LoadFigures:
    return figures_of(tally, now, load="x", open_=True, concurrency=None, objectives=objectives, loop=loop or idle())


def test_latency_from_the_planned_arrival_has_the_wait_before_sending() -> None:
    tally = LoadTally(100.0)
    answered(tally, *[0.1] * 50, waited=2.0)
    found = figures(tally, 110.0)
    assert found.from_arrival is not None
    assert found.from_sending is not None
    assert found.late is not None
    assert found.from_sending.p50 == pytest.approx(0.1, rel=0.006)
    assert found.from_arrival.p50 == pytest.approx(2.1, rel=0.006)
    assert found.late.p99 == pytest.approx(2.0, rel=0.006)


def test_rates_are_of_what_was_answered_while_requests_were_sent() -> None:
    tally = LoadTally(100.0)
    answered(tally, *[0.1] * 50)
    tally.close(110.0, 7)
    answered(tally, *[10.5] * 7)
    found = figures(tally, 125.0)
    assert (found.seconds, found.answered, found.requests_per_second) == (10.0, 57, 5.0)
    assert (found.tokens_in_per_second, found.tokens_out_per_second) == (15.0, None)


def test_a_request_that_was_waited_for_in_vain_counts_with_that_time() -> None:
    tally = LoadTally(0.0)
    answered(tally, *[0.1] * 90)
    for _ in range(5):
        tally.cut(Sent(0.0, 0.0), 30.0)
        tally.fail(Sent(0.0, 0.0), 30.0, "timeout", None, "no answer within 30 s")
    found = figures(tally, 30.0)
    assert found.from_arrival is not None
    assert found.from_arrival.p95 == pytest.approx(30.0, rel=0.006)
    assert (found.cut_off, found.failed, found.statuses) == (5, 5, {"200": 90, "none": 5})


def test_a_refusal_has_no_latency_and_misses_every_objective() -> None:
    tally = LoadTally(0.0)
    answered(tally, *[0.1] * 90)
    for _ in range(10):
        tally.fail(Sent(0.0, 0.0), 0.001, "rate_limited", 429, "slow down")
    met, missed = (verdict_on(Objective(percent, 1.0), tally) for percent in (90, 95))
    assert (met.met, met.part) == (True, 90.0)
    assert (missed.met, missed.reached) == (False, None)
    assert figures(tally, 10.0, Objective(95, 1.0)).goodput == 9.0
    assert figures(tally, 10.0).from_sending == figures(tally, 10.0).from_arrival
    assert figures(tally, 10.0).causes[0].message == "slow down"


def test_an_arrival_that_could_not_be_sent_is_not_forgotten() -> None:
    tally = LoadTally(0.0)
    answered(tally, 0.1)
    tally.planned += 1
    tally.leave_unsent(2.0, 10.0)
    found = figures(tally, 10.0, Objective(60, 1.0))
    assert found.from_arrival is not None
    assert found.from_arrival.longest == 8.0
    assert (found.unsent, found.planned, found.sent, found.verdicts[0].met) == (1, 2, 1, False)


def test_without_any_request_no_objective_is_met() -> None:
    assert not verdict_on(Objective(50, 1.0), LoadTally(0.0)).met


def test_answers_to_requests_of_the_step_before_count_only_in_the_throughput() -> None:
    tally = LoadTally(10.0)
    tally.answer(Sent(2.0, 2.0), 11.0, 4, (None, None))
    found = figures(tally, 12.0)
    assert (found.from_sending, found.items_per_second) == (None, 2.0)


def test_requests_in_flight_are_averaged_over_time() -> None:
    tally = LoadTally(0.0)
    tally.weigh(4.0, 0)
    tally.close(8.0, 6)
    tally.weigh(20.0, 9)  # no more is sent then
    assert (tally.mean_in_flight, tally.most_in_flight) == (3.0, 6)


@pytest.mark.parametrize(
    ("late", "thread", "no_room", "said"),
    [
        (0.001, 1.0, 0, None),
        (0.008, 9.5, 0, "its event loop computed for 95% of the time"),
        (0.030, 1.0, 0, "its event loop was 30 ms late (99 %)"),
        (0.001, 1.0, 3, "this machine had no room for another connection 3 times"),
    ],
)
def test_the_client_says_if_it_was_the_limit(late: float, thread: float, no_room: int, said: str | None) -> None:
    tally, lateness = LoadTally(0.0), PercentileHistogram()
    answered(tally, *[0.2] * 10)
    lateness.add(late)
    client = figures(tally, 10.0, loop=LoopTime(lateness, 10.0, 9.5, thread, no_room)).client
    assert (client.limit, client.cpu, client.busy) == (said, 0.95, thread / 10)


def test_lateness_counts_in_proportion_to_the_latency() -> None:
    tally, lateness = LoadTally(0.0), PercentileHistogram()
    answered(tally, *[2.0] * 10)
    lateness.add(0.09)
    assert figures(tally, 10.0, loop=LoopTime(lateness, 10.0, 1.0, 1.0)).client.limit is None


def test_the_server_is_described_by_the_most_of_what_it_said() -> None:
    samples = [EngineSample(0.2, 0, 4, 10), EngineSample(0.9, 7, 8, 12), EngineSample(0.1, 0, 1, 12)]
    assert ServerSide.of(samples) == ServerSide(8, 7, 0.9, 2)
    assert ServerSide.of([EngineSample(running=3)]) == ServerSide(running=3)
    assert ServerSide.of([]) is None


def test_a_course_has_at_most_120_slices_which_cover_it() -> None:
    course = LoadCourse(50.0, 3600.0)
    assert course.at(50.0).since == 0.0
    assert course.at(50.0 + 3599.0) is course.at(99_999.0)
    assert len(course.slices) == 120
    assert course.slices[-1].until == 3600.0
    short = LoadCourse(0.0, 2.5)
    short.at(9.0)
    assert [part.until for part in short.slices] == [1.0, 2.5]
