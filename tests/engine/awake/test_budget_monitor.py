from __future__ import annotations

import re
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.budget import Budget, day_of
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import BudgetSpent, UsageError
from orchestrator.domain.terms import Spent, Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.execution import Safety
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sources import TextSource
from tests.engine.scripted import QUICK, Scripted, job_of, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)  # one dollar a second
# seconds of today that must have passed, because others have spent in them
begun = pytest.mark.skipif(time.time() - day_of(time.time())[0] < 300, reason="the day of UTC has only just begun")
TEXTS = [f"text {number}" for number in range(20)]


async def run_within(job: Job, store: Store, budget: Budget) -> RunResult:
    safety = Safety(nullcontext, lambda fields: Scripted(), budget)
    return await run_job(RunRequest(job), store, Progress(), Stop(), safety)


async def spent_before(store: Store, job: str, seconds: float, terms: Terms = TERMS) -> None:
    """Record a closed window in which another process kept the endpoint awake for so long."""
    process = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=600.0)
    window = await store.windows.enter(terms, process, 999, job)
    assert window is not None
    await store.windows.owe(window, terms, EndpointState.PAUSED)
    await store.windows.close(window, process, EndpointState.PAUSED, "paused", by="run", spent=Spent())
    async with store.database.write() as connection:
        for table, moments in (("awake_window", ("opened_at", "resumed_at")), ("hold", ("since",))):
            for moment in moments:
                await connection.execute(
                    f"UPDATE {table} SET {moment} = {moment} - {seconds} WHERE id = (SELECT max(id) FROM {table})"
                )


@pytest.mark.parametrize("limit", [{"max_awake": 1.5}, {"max_cost": 1.5}])
async def test_a_run_stops_when_its_budget_is_spent_and_estimates_the_rest(
    store: Store, tmp_path: Path, limit: Mapping[str, float]
) -> None:
    endpoint = Scripted(terms=TERMS, slow_after=10)
    policy = Policy(concurrency=1, grace=0.0, backoff=QUICK, **limit)  # type: ignore[arg-type]
    job = job_of(TEXTS, endpoint, tmp_path, policy)
    with pytest.raises(
        BudgetSpent, match=r"the budget is spent \(.* 10 items left, .* raise policy.max_cost or"
    ) as spent:
        await run(job, store)
    assert spent.value.until is None
    assert endpoint.calls == ["resume", "pause"]


async def test_the_budget_of_a_run_spans_its_starts_and_midnight(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, slow_after=10)
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(TEXTS))
    policy = Policy(concurrency=1, grace=0.0, backoff=QUICK, max_awake=1.5)
    job = replace(job_of([], endpoint, tmp_path, policy), source=TextSource(rows))
    for _ in range(2):
        with pytest.raises(BudgetSpent, match="the budget is spent"):
            await run(job, store)
        await two_days_pass(store)
    assert endpoint.calls == ["resume", "pause"]  # the second start woke nothing
    endpoint.slow_after = None
    done = await run(replace(job, policy=replace(job.policy, max_awake=60.0)), store)
    assert (done.run.id, done.counts.completed) == (1, 20)


async def two_days_pass(store: Store) -> None:
    """Make all recorded times older, as if two days had passed."""
    moments = {
        "run": ["created_at"],
        "awake_window": ["opened_at", "resumed_at", "closed_at"],
        "hold": ["since", "until"],
    }
    async with store.database.write() as connection:
        for table, columns in moments.items():
            older = ", ".join(f"{column} = {column} - 2 * 86400" for column in columns)
            await connection.execute(f"UPDATE {table} SET {older}")


async def test_all_endpoints_of_a_run_share_its_budget(store: Store, tmp_path: Path) -> None:
    endpoints = [
        Scripted(terms=replace(TERMS, endpoint=name), name=name, slow_after=1, startup_timeout=60)
        for name in ("a", "b")
    ]
    policy = Policy(concurrency=1, grace=0.0, backoff=QUICK, max_awake=2.0)
    with pytest.raises(BudgetSpent):
        await run(job_of(TEXTS, [*endpoints], tmp_path, policy), store)
    assert [endpoint.calls for endpoint in endpoints] == [["resume", "pause"]] * 2
    seconds = [receipt.spent.seconds for receipt in await store.receipts.since()]
    assert 1.8 < sum(seconds) < 3.5
    assert max(seconds) < 1.9


@begun
@pytest.mark.parametrize("limit", [{"max_cost_per_day": 100.0}, {"max_awake_per_day": 100.0}])
async def test_a_job_has_a_daily_budget_and_continues_at_midnight(
    store: Store, tmp_path: Path, limit: Mapping[str, float]
) -> None:
    endpoint = Scripted(terms=TERMS)
    job = job_of(TEXTS, endpoint, tmp_path, Policy(backoff=QUICK, **limit))  # type: ignore[arg-type]
    await spent_before(store, "another job", 101.0)
    assert (await run(job, store)).counts.completed == 20
    await spent_before(store, job.name, 101.0)
    with pytest.raises(BudgetSpent, match=r"the job's budget for the day is spent \(10\d s awake, \$10") as spent:
        await run(replace(job, request="again {text}"), store)
    assert spent.value.until == day_of(time.time())[1]
    assert endpoint.calls == ["resume", "pause"]


@begun
async def test_all_jobs_share_one_daily_budget(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS)
    await spent_before(store, "another job", 101.0, replace(TERMS, endpoint="other"))
    with pytest.raises(BudgetSpent, match="the budget of all jobs for the day is spent"):
        await run_within(job_of(TEXTS, endpoint, tmp_path), store, Budget(max_cost=100.0))
    assert endpoint.calls == []
    assert (await run_within(job_of(TEXTS, endpoint, tmp_path), store, Budget(max_cost=200.0))).counts.completed == 20


@begun
async def test_spending_by_other_runs_stops_a_run(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, gate=anyio.Event())
    job = job_of(TEXTS, endpoint, tmp_path, Policy(grace=0.0, backoff=QUICK))

    async def spend() -> None:
        while not endpoint.asked:
            await anyio.sleep(0.01)
        await spent_before(store, "another job", 100.0, replace(TERMS, endpoint="other"))

    async with anyio.create_task_group() as group:
        group.start_soon(spend)
        with pytest.raises(BudgetSpent):
            await run_within(job, store, Budget(max_awake=90.0))
    assert endpoint.calls == ["resume", "pause"]


async def test_endpoints_that_do_not_bill_continue_when_the_budget_is_spent(store: Store, tmp_path: Path) -> None:
    bills, free = Scripted(terms=TERMS, name="bills"), Scripted(name="free")
    report = await run_within(job_of(TEXTS, [bills, free], tmp_path), store, Budget(max_awake=0.0))
    assert report.counts.completed == 20
    assert bills.calls == []
    assert re.match(
        r"the budget of all jobs for the day is spent \(0 s awake\); run .* after .* UTC", report.out["bills"]
    )


async def test_a_daily_budget_in_dollars_needs_prices_and_wakes_nothing_without_them(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=replace(TERMS, price_per_hour=None))
    with pytest.raises(UsageError, match=r"\[budget\] needs to know what the endpoint costs"):
        await run_within(job_of(TEXTS, endpoint, tmp_path), store, Budget(max_cost=1.0))
    assert endpoint.calls == []


async def test_an_endpoint_that_is_kept_awake_is_paused_when_the_budget_is_spent(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, linger=600.0))
    report = await run(job_of(["a"], endpoint, tmp_path, Policy(backoff=QUICK, max_awake=0.5)), store)
    assert report.counts.completed == 1
    assert endpoint.calls == ["resume", "pause"]
