"""`/metrics`: what Prometheus reads agrees with the ledger, whichever process worked and whatever was pruned."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import Policy
from orchestrator.domain.charges import Charge, UsePrice
from orchestrator.domain.costs import bill
from orchestrator.domain.errors import FailureKind, LossCause
from orchestrator.engine.stop import Stop
from orchestrator.store.prune import prune, retain
from tests.engine.scripted import QUICK, Scripted, job_of, run
from tests.past import NIGHT, a_bad_night, clock_at

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client import Metric

    from orchestrator.store import Store
    from tests.server.conftest import Inside

LATER = 500 * 86_400.0  # seconds: nothing that has ended is kept so long
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def scraped(http: Inside) -> dict[str, float]:
    """Scrape; return each series as Prometheus names it."""
    async with http.client.get("/metrics") as response:
        assert response.status == 200
        return series(text_string_to_metric_families(await response.text()))


def series(families: Iterable[Metric]) -> dict[str, float]:
    found = dict[str, float]()
    for family in families:
        for sample in family.samples:
            labels = [f"{name}={value}" for name, value in sorted(sample.labels.items()) if value]
            found[" ".join([sample.name, *labels])] = sample.value
    return found


def counters(found: dict[str, float]) -> dict[str, float]:
    grow = ("_total", "_bucket", "_count", "_sum")
    return {name: value for name, value in found.items() if name.split(" ")[0].endswith(grow)}


async def test_a_new_ledger_has_every_known_cause_at_zero(http: Inside) -> None:
    found = await scraped(http)
    assert set(found.values()) == {0.0}
    for kind in FailureKind:
        assert f"orchestrator_items_settled_total cause={kind} outcome=discarded" in found
    for cause in LossCause:
        assert f"orchestrator_requests_lost_total cause={cause}" in found


async def test_a_scraper_may_ask_for_openmetrics(http: Inside) -> None:
    async with http.client.get("/metrics", headers={"Accept": OPENMETRICS}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        found = series(openmetrics_families(await response.text()))  # type: ignore[no-untyped-call]  # untyped there
    assert found.items() >= (await scraped(http)).items()


async def test_a_version_that_cannot_be_read_gets_the_plain_format(http: Inside) -> None:
    async with http.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=x"}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")


async def test_metrics_need_the_token(http: Inside) -> None:
    async with http.anybody.get("/metrics") as response:
        assert response.status == 401


async def test_the_totals_are_those_of_all_runs(http: Inside, tmp_path: Path) -> None:
    store = http.app.store
    texts = [f"text {number}" for number in range(40)] + ["poison"]
    first = await run(job_of(texts, Scripted(rate_limited=3), tmp_path, Policy(concurrency=4, backoff=QUICK)), store)
    other = replace(job_of(["a", "b"], Scripted(), tmp_path), name="other", sink=None)
    second = await run(other, store)
    found = await scraped(http)
    assert found["orchestrator_requests_total"] == first.asked + second.asked
    assert found["orchestrator_items_settled_total outcome=completed"] == 42
    assert found["orchestrator_items_settled_total cause=rejected outcome=discarded"] == 1
    assert found["orchestrator_attempts_retried_total cause=rate_limited"] == 3
    assert found["orchestrator_request_duration_seconds_count"] == 42
    assert found["orchestrator_request_duration_seconds_bucket le=+Inf"] == 42
    assert 0 < found["orchestrator_request_duration_seconds_sum"] < 60
    assert found["orchestrator_commit_seconds_count"] >= 2
    assert found["orchestrator_commit_seconds_sum"] > 0
    assert found["orchestrator_requests_in_flight"] == found["orchestrator_runs_executing"] == 0
    assert sum(value for name, value in found.items() if name.startswith("orchestrator_items ")) == 0


async def test_requests_are_counted_by_status_and_charges_by_endpoint(
    http: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.server.polls.KEPT", 0.0)
    store, endpoint = http.app.store, Scripted(use_price=UsePrice(per_request=0.5), rate_limited=3)
    texts = [f"text {number}" for number in range(10)] + ["poison"]
    report = await run(job_of(texts, endpoint, tmp_path, Policy(concurrency=4, backoff=QUICK)), store)
    found = await scraped(http)
    assert found["orchestrator_responses_total status=200"] == 10
    assert found["orchestrator_responses_total status=429"] == 3
    assert (
        found["orchestrator_requests_total"]
        == report.asked
        == sum(value for name, value in found.items() if name.startswith("orchestrator_responses_total"))
    )
    assert found["orchestrator_endpoint_charges_dollars_total endpoint=scripted"] == 5.0
    await store.charges.add_to_command("bench", "other", Charge(2.0, 0.0, 0.0, 0.25))
    await prune(store, time.time() + LATER)
    await retain(store, 0.0, time.time() + LATER)
    found = await scraped(http)
    assert found["orchestrator_endpoint_charges_dollars_total endpoint=scripted"] == 5.0
    assert found["orchestrator_endpoint_charges_dollars_total endpoint=other"] == 0.25


async def test_pruning_lowers_no_counter(http: Inside, tmp_path: Path) -> None:
    store = http.app.store
    await run(job_of([f"text {number}" for number in range(20)], Scripted(), tmp_path), store)
    with clock_at(NIGHT) as clock:
        await a_bad_night(store, clock)
        before = counters(await scraped(http))
        assert before["orchestrator_endpoint_awake_seconds_total endpoint=acme/embed"] > 0
        runs, _ = await prune(store, clock.now + LATER)
        pruned = await retain(store, 0.0, clock.now + LATER)
        assert runs > 1
        assert pruned.others > 1
        assert await count(store, "awake_window WHERE state = 'closed'") == 0
        assert counters(await scraped(http)) == pytest.approx(before)


async def test_an_endpoint_costs_what_the_bill_says(http: Inside) -> None:
    with clock_at(NIGHT) as clock:
        await a_bad_night(http.app.store, clock)
        found = await scraped(http)
        costs = bill(await http.app.store.receipts.since(), "endpoint", clock.now)
    assert len(costs) > 1
    for cost in costs:
        assert found[f"orchestrator_endpoint_awake_seconds_total endpoint={cost.what}"] == pytest.approx(cost.seconds)
        assert found[f"orchestrator_endpoint_cost_dollars_total endpoint={cost.what}"] == pytest.approx(cost.dollars)
    assert found["orchestrator_debts"] == len(await http.app.owed()) > 0


async def test_more_jobs_make_no_more_series(http: Inside, tmp_path: Path) -> None:
    job = job_of(["a"], Scripted(), tmp_path)
    await run(job, http.app.store)
    one = await scraped(http)
    for number in range(3):
        await run(replace(job, name=f"batch-{number}", sink=None), http.app.store)
    assert (await scraped(http)).keys() == one.keys()


async def test_a_live_run_shows_what_it_has_in_flight_and_left(
    http: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.server.polls.KEPT", 0.0)
    gate, stop = anyio.Event(), Stop()
    endpoint = Scripted(gate=gate)
    job = job_of([f"text {number}" for number in range(10)], endpoint, tmp_path, Policy(concurrency=2))
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, http.app.store, stop)
        while len(endpoint.asked) < 2:
            await anyio.sleep(0.001)
        found = await scraped(http)
        gate.set()
    assert found["orchestrator_runs_executing"] == 1
    assert found["orchestrator_items state=leased"] == 10
    assert found["orchestrator_items_settled_total outcome=completed"] == 0
    assert (await scraped(http))["orchestrator_items state=leased"] == 0


async def count(store: Store, what: str) -> int:
    async with store.database.read() as connection:
        return int((await connection.execute(f"SELECT count(*) FROM {what}")).scalar_one())
