from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from orchestrator import Policy
from orchestrator.domain.errors import EndpointRefused, FailureKind, NotAwake, OutOfCredit, RequestFailed
from orchestrator.engine.asking.outage import REFUSED
from orchestrator.engine.status import status_of
from tests.engine.scripted import QUICK, Scripted, job_of, outputs, run
from tests.ledgers import forgive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.store import Store

NO_CREDIT = OutOfCredit("u answered 402 (credits depleted): add credit, then run the same command again to continue")
GATEWAY = RequestFailed(FailureKind.RATE_LIMITED, "503 Service Temporarily Unavailable", status=503)
KINDS = {
    "503": GATEWAY,
    "502": RequestFailed(FailureKind.UNAVAILABLE, "bad gateway", status=502),
    "424": RequestFailed(FailureKind.DUBIOUS, "transport error", status=424),
    "engine": RequestFailed(FailureKind.UNAVAILABLE, "EngineCore encountered an issue", status=500),
    "time-out": RequestFailed(FailureKind.TIMEOUT, "no complete answer"),
    "cut": RequestFailed(FailureKind.CONNECTION, "the connection broke"),
    "page": RequestFailed(FailureKind.GARBLED, "no JSON"),
    "404": EndpointRefused("u answered 404 (default backend): check the URL"),
}
TEXTS = [f"text {number}" for number in range(60)]
ONCE = Policy(concurrency=4, max_attempts=1, backoff=QUICK)


def away(endpoint: Scripted, first: int, count: int, failure: Exception) -> Callable[[Sequence[str]], Exception | None]:
    """Fail every request, from this request on and for so many."""
    return lambda _: failure if first < len(endpoint.asked) <= first + count else None


@pytest.mark.parametrize("kind", KINDS)
async def test_an_endpoint_that_fails_every_request_is_waited_for_and_no_item_loses_an_attempt(
    kind: str, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.002)
    endpoint.fails_with = away(endpoint, 20, 5, KINDS[kind])  # it is lost once at least, and never five times in a row
    report = await run(job := job_of(TEXTS, endpoint, tmp_path, ONCE), store)
    assert (report.counts.completed, report.counts.discarded) == (60, 0)
    assert len(outputs(job)) == 60
    assert len(endpoint.asked) <= 60 * 1.3
    (lost,) = report.traffic.failed
    assert (lost.kind, lost.attempts) == ("lost", lost.retried)
    assert 1 <= lost.attempts <= 5
    assert report.traffic.lost == {"failing": lost.attempts}
    status = await status_of(None, store)  # in any process
    assert status.traffic == report.traffic


@pytest.mark.parametrize("kind", ["503", "engine", "cut"])
async def test_with_one_request_at_a_time_a_random_failure_is_judged_by_the_next_row_and_not_by_a_probe(
    kind: str, store: Store, tmp_path: Path
) -> None:
    endpoint, draw = Scripted(), random.Random(0)
    endpoint.fails_with = lambda _: KINDS[kind] if draw.random() < 0.15 else None
    texts = [f"text {number}" for number in range(200)]
    report = await run(job_of(texts, endpoint, tmp_path, Policy(concurrency=1, backoff=QUICK, max_attempts=6)), store)
    assert report.counts.completed == 200
    assert len(endpoint.asked) <= 200 * 1.3


async def test_while_an_endpoint_is_down_one_previously_answered_request_at_a_time_probes_it(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.002)
    endpoint.fails_with = away(endpoint, 20, 7, GATEWAY)
    await run(job_of(TEXTS, endpoint, tmp_path, ONCE), store)
    before, while_down = ([text for (text,) in part] for part in (endpoint.asked[:20], endpoint.asked[20:27]))
    probes = [text for text in while_down if text in before]
    assert len(probes) >= 3
    assert len(set(probes)) > 1  # one of the answered items may fail by itself now


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_only_the_first_failure_of_a_last_row_causes_a_probe_and_a_rejection_causes_none(
    concurrency: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.001)
    endpoint.fails_with = lambda texts: GATEWAY if "flaky" in texts and endpoint.texts.count("flaky") <= 2 else None
    policy = Policy(concurrency=concurrency, backoff=QUICK, order="input")
    report = await run(job_of([*TEXTS[:20], "poison", "flaky"], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (21, 1)
    assert (endpoint.texts.count("poison"), endpoint.texts.count("flaky")) == (1, 3)
    assert len(endpoint.asked) == report.asked == 20 + 1 + 3 + 1


@pytest.mark.parametrize("kind", ["503", "page"])
@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("rows", [18, 60])
async def test_if_half_of_the_rows_always_fail_answered_rows_are_hardly_asked_again(
    kind: str, concurrency: int, rows: int, store: Store, tmp_path: Path
) -> None:
    endpoint, draw = Scripted(delay=0.001), random.Random(rows)
    texts = ["good one", *(f"{'bad' if draw.random() < 0.5 else 'good'} {number}" for number in range(1, rows))]
    good = [text for text in texts if "good" in text]
    endpoint.fails_with = lambda asked: KINDS[kind] if any("bad" in text for text in asked) else None
    policy = Policy(
        concurrency=concurrency, backoff=QUICK, rate_limit_attempts=5, breaker=1000, max_error_rate=1, order="input"
    )
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (len(good), rows - len(good))
    again = sum("good" in text for text in endpoint.texts) - len(good)
    assert again <= 4 + (rows - len(good)) * 5 // 16


async def test_if_answers_are_slow_and_half_of_the_rows_always_fail_answered_rows_are_hardly_asked_again(
    store: Store, tmp_path: Path
) -> None:
    endpoint, texts = Scripted(delay=30.0), [f"{'good' if number % 2 else 'bad'} {number}" for number in range(1, 41)]
    endpoint.fails_with = lambda asked: KINDS["engine"] if any("bad" in text for text in asked) else None
    policy = Policy(concurrency=4, backoff=QUICK, breaker=1000, max_error_rate=1, order="input")
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (20, 20)
    assert sum("good" in text for text in endpoint.texts) <= 20 + 8


@pytest.mark.parametrize("concurrency", [1, 4, 16])
async def test_good_rows_that_are_in_flight_at_an_outage_after_many_failing_rows_lose_no_attempt(
    concurrency: int, store: Store, tmp_path: Path
) -> None:
    endpoint, bad = Scripted(delay=0.001), [f"bad {number}" for number in range(40)]
    texts = [text for pair in zip(TEXTS[:40], bad, strict=True) for text in pair] + TEXTS[40:]

    def fails(asked: Sequence[str]) -> Exception | None:
        before, since = endpoint.texts[:90], endpoint.texts[90:]
        down = since and sum(text in before for text in since) < 3  # until an answered row has been asked again
        return GATEWAY if down or any("bad" in text for text in asked) else None

    endpoint.fails_with = fails
    policy = Policy(
        concurrency=concurrency, rate_limit_attempts=1, backoff=QUICK, breaker=1000, max_error_rate=1, order="input"
    )
    report = await run(job_of(texts, endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (60, 40)


def refused(status: int) -> EndpointRefused:
    refusal = EndpointRefused(f"u answered {status} (no longer valid): check the token")
    refusal.forbidden = True
    return refusal


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_becomes_invalid_ends_the_run_after_a_few_probes_and_discards_nothing(
    status: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(startup_timeout=3600.0, delay=0.002)
    endpoint.fails_with = away(endpoint, 20, 10_000, refused(status))
    job = job_of(TEXTS, endpoint, tmp_path, ONCE)
    with pytest.raises(EndpointRefused, match=r"check the token; .*run the same command again") as raised:
        await run(job, store)
    assert len(str(raised.value).splitlines()) == 1
    assert len(endpoint.asked) <= 20 + 4 + REFUSED
    assert (await store.views.counts(1, 60)).discarded == 0
    assert endpoint.calls[-1] == "pause"
    endpoint.fails_with = None
    assert (await run(job, store)).counts.completed == 60


async def test_a_token_that_is_refused_for_a_moment_ends_no_run(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.002)
    endpoint.fails_with = away(endpoint, 20, 4 + 3, refused(403))
    report = await run(job_of(TEXTS, endpoint, tmp_path, ONCE), store)
    assert (report.counts.completed, report.counts.discarded) == (60, 0)


async def test_an_endpoint_that_does_not_recover_in_time_stops_the_run_resumably(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(startup_timeout=0.3)
    endpoint.fails_with = away(endpoint, 20, 10_000, GATEWAY)
    job = job_of(TEXTS, endpoint, tmp_path, ONCE)
    with pytest.raises(NotAwake, match=r"lost \d times .*503 Service Temporarily Unavailable.*run the same command"):
        await run(job, store)
    endpoint.fails_with = None
    assert (await run(job, store)).counts.completed == 60


async def test_an_endpoint_that_is_down_when_a_run_begins_is_waited_for(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    endpoint.fails_with = away(endpoint, 0, 6, GATEWAY)
    report = await run(job_of(TEXTS, endpoint, tmp_path, ONCE), store)
    assert report.counts.completed == 60


@pytest.mark.parametrize("kind", ["503", "engine", "424", "cut"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_rows_that_always_fail_are_discarded_even_if_no_other_is_left(
    kind: str, concurrency: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.001)
    endpoint.fails_with = lambda texts: KINDS[kind] if any("bad" in text for text in texts) else None
    policy = Policy(concurrency=concurrency, backoff=QUICK, order="input")
    job = job_of([*TEXTS[:20], *(f"bad {number}" for number in range(6))], endpoint, tmp_path, policy)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (20, 6)


async def test_answers_of_an_earlier_process_show_whether_the_row_or_the_endpoint_is_at_fault(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted()
    endpoint.fails_with = lambda texts: GATEWAY if "bad" in texts else None
    job = job_of([*TEXTS[:5], "bad"], endpoint, tmp_path, Policy(concurrency=1, backoff=QUICK))
    report = await run(job, store)
    await forgive(store, report.run.id)
    before = len(endpoint.asked)
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (5, 1)
    assert len(endpoint.asked) - before <= 2 * 5


async def test_a_failing_item_that_was_answered_before_does_not_prove_an_outage(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    endpoint.fails_with = lambda texts: GATEWAY if "bad" in texts else None
    job = job_of([*TEXTS[:5], "bad"], endpoint, tmp_path, Policy(concurrency=1, backoff=QUICK, order="input"))
    report = await run(job, store)
    await forgive(store, report.run.id)
    endpoint.fails_with = lambda texts: KINDS["page"] if "bad" in texts or TEXTS[0] in texts else None
    report = await run(job, store)
    assert (report.counts.completed, report.counts.discarded) == (5, 1)


async def test_an_item_that_repeatedly_crashes_the_endpoint_is_found_and_discarded(
    store: Store, tmp_path: Path
) -> None:
    endpoint, down = Scripted(delay=0.001), 0

    def dies(texts: Sequence[str]) -> Exception | None:
        nonlocal down
        down = 2 if "deadly" in texts else max(0, down - 1)
        return GATEWAY if down else None

    endpoint.fails_with = dies
    policy = Policy(concurrency=4, backoff=QUICK, order="input")
    report = await run(job := job_of([*TEXTS[:20], "deadly", *TEXTS[20:]], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (60, 1)
    assert "i20" not in outputs(job)


@pytest.mark.parametrize("concurrency", ["auto", 32])
@pytest.mark.parametrize("status", [503, 429])
async def test_a_server_that_refuses_excess_requests_gets_fewer_at_once_and_loses_no_row(
    concurrency: int, status: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.005)
    full = RequestFailed(FailureKind.RATE_LIMITED, "Service Unavailable", status=status)
    endpoint.fails_with = lambda _: full if endpoint.in_flight > 8 else None
    policy = Policy(concurrency=concurrency, backoff=QUICK)
    report = await run(job_of([f"text {number}" for number in range(600)], endpoint, tmp_path, policy), store)
    assert report.counts.completed == 600
    assert len(endpoint.asked) <= 600 * 1.3


async def test_a_row_refused_repeatedly_by_a_full_server_is_asked_alone(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.002)
    full = RequestFailed(FailureKind.RATE_LIMITED, "Service Unavailable", status=503)
    endpoint.fails_with = lambda texts: full if "unlucky" in texts and endpoint.in_flight > 1 else None
    texts = ["unlucky", *(f"text {number}" for number in range(600))]
    policy = Policy(concurrency=4, backoff=QUICK, order="input")
    report = await run(job := job_of(texts, endpoint, tmp_path, policy), store)
    assert report.counts.completed == 601
    assert outputs(job)["i0"] == "UNLUCKY"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_first_row_with_an_endpoint_wide_refusal_does_not_end_the_run(
    concurrency: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted()
    policy = Policy(concurrency=concurrency, backoff=QUICK, order="input")
    report = await run(job_of(["forbidden", *TEXTS], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (60, 1)


@pytest.mark.parametrize("row", [20, 59])
async def test_a_row_that_is_answered_402_is_discarded_if_other_requests_succeed(
    row: int, store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(delay=0.002)
    endpoint.fails_with = lambda texts: NO_CREDIT if f"text {row}" in texts else None
    report = await run(job_of(TEXTS, endpoint, tmp_path, ONCE), store)
    assert (report.counts.completed, report.counts.discarded) == (59, 1)
    assert [(cause.kind, cause.sample) for cause in report.causes] == [("dubious", f"i{row}")]


async def test_a_402_before_anything_was_answered_ends_the_run_and_says_so(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    endpoint.fails_with = lambda _: OutOfCredit("u answered 402: add credit")
    with pytest.raises(OutOfCredit) as raised:
        await run(job_of(TEXTS[:3], endpoint, tmp_path, ONCE), store)
    assert (
        str(raised.value)
        == "u answered 402: add credit; nothing had been answered before, so this counts for every request"
    )


async def test_a_run_without_credit_stops_and_discards_nothing(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(delay=0.002)
    endpoint.fails_with = away(endpoint, 20, 1000, NO_CREDIT)
    job = job_of(TEXTS, endpoint, tmp_path, ONCE)
    with pytest.raises(OutOfCredit, match="add credit"):
        await run(job, store)
    assert len(endpoint.asked) <= 20 + 2 * 4 + 1
    counts = await store.views.counts(1, 60)
    assert 0 < counts.completed <= 20
    assert counts.discarded == 0
    endpoint.fails_with = None
    assert (await run(job, store)).counts.completed == 60
