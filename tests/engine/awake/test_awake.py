from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointLost,
    EndpointRefused,
    EndpointSilent,
    LedgerError,
    PauseUnconfirmed,
    RunStopped,
    UsageError,
)
from orchestrator.domain.terms import Pause, Terms
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.awake.sweep import sweep
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.execution import Safety
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER
from tests.engine.scripted import QUICK, Scripted, job_of, run, tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)


async def test_the_debt_is_stored_and_the_guard_watches_before_anything_is_resumed(
    store: Store, tmp_path: Path
) -> None:
    order: list[str] = []
    endpoint = Scripted(terms=TERMS)

    async def note() -> None:
        (window,) = await store.receipts.since()
        order.append(f"resume, billed from {window.billed_from > 0}, {len(endpoint.calls)} calls")

    @asynccontextmanager
    async def guard() -> AsyncIterator[None]:
        order.append("guard")
        yield
        order.append("guard dismissed")
        assert endpoint.state is EndpointState.PAUSED

    endpoint.before_resume = note
    safety = Safety(guard, lambda fields: endpoint)
    report = await run_job(RunRequest(job_of(["a"], endpoint, tmp_path)), store, Progress(), Stop(), safety)
    assert order == ["guard", "resume, billed from True, 1 calls", "guard dismissed"]
    (stay,) = report.session_costs
    assert (stay.proof or "").startswith("endpoint scripted read as paused at ")
    assert stay.cost == stay.spent.seconds > 0
    assert await store.windows.debts() == []


@pytest.mark.parametrize(
    ("pause", "found", "calls"),
    [
        (Pause.IF_RESUMED, EndpointState.PAUSED, ["resume", "pause"]),
        (Pause.IF_RESUMED, EndpointState.AWAKE, []),
        (Pause.IF_RESUMED, EndpointState.SCALED_TO_ZERO, ["resume", "scale to zero"]),
        (Pause.ALWAYS, EndpointState.AWAKE, ["pause"]),
        (Pause.NEVER, EndpointState.PAUSED, ["resume"]),
        (Pause.SCALE_TO_ZERO, EndpointState.PAUSED, ["resume", "scale to zero"]),
    ],
)
async def test_the_endpoint_is_left_as_its_terms_say(
    store: Store, tmp_path: Path, pause: Pause, found: EndpointState, calls: list[str]
) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause=pause), state=found)
    await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == calls
    assert await store.windows.debts() == []


@pytest.mark.parametrize(
    ("state", "failure", "says"),
    [
        (EndpointState.FAILED, EndpointFailed, "endpoint scripted failed: failed"),
        (EndpointState.GONE, EndpointFailed, "there is no endpoint scripted"),
    ],
)
async def test_an_endpoint_that_cannot_wake_fails_the_run(
    store: Store, tmp_path: Path, state: EndpointState, failure: type[Exception], says: str
) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause=Pause.ALWAYS), state=state)
    with pytest.raises(failure, match=says):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["pause"]  # whatever its state, it must not cost anything


async def test_an_endpoint_without_capacity_is_paused_and_the_run_can_be_continued(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=TERMS, wakes=False, startup_timeout=0.05)
    with pytest.raises(RunStopped, match=r"was not awake within 0\.05 s"):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause"]
    endpoint.wakes, endpoint.startup_timeout = True, 30.0
    assert (await run(job_of(["a"], endpoint, tmp_path), store)).counts.completed == 1


async def test_an_endpoint_that_misses_its_timeout_is_reported_with_its_latest_state(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=TERMS, wakes=False, startup_timeout=0.05, look_every=60.0)
    with pytest.raises(RunStopped, match=r"was not awake within 0\.05 s: starting"):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.looks == 3  # before resuming, at the end, and once it is paused


async def test_an_endpoint_left_awake_is_reported_with_its_latest_state(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause=Pause.NEVER), look_every=60.0)
    (stay,) = (await run(job_of(["a"], endpoint, tmp_path), store)).session_costs
    assert stay.proof == "endpoint scripted was left awake, as job scripted keeps it: awake"


async def test_installing_packages_does_not_count_as_startup_time(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(installs=40, startup_timeout=0.2)  # state requests, each 0.01 seconds after the previous one
    assert (await run(job_of(["a"], endpoint, tmp_path), store)).counts.completed == 1
    assert endpoint.installs == 0


@pytest.mark.parametrize(("said", "listed", "price"), [(2.0, 5.0, 2.0), (None, 5.0, 5.0), (None, None, None)])
async def test_the_price_is_set_by_the_user_or_else_by_the_provider(
    store: Store, tmp_path: Path, said: float | None, listed: float | None, price: float | None
) -> None:
    endpoint = Scripted(terms=replace(TERMS, price_per_hour=said), price=listed)
    report = await run(job_of(["a"], endpoint, tmp_path), store)
    (stay,) = report.session_costs
    assert stay.price_per_hour == price
    assert [receipt.price_per_hour for receipt in await store.receipts.since()] == [price]


async def test_runs_that_share_an_endpoint_request_its_price_once(store: Store) -> None:
    endpoint = Scripted(terms=replace(TERMS, price_per_hour=None), price=5.0)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            lent = await stack.enter_async_context(awake(endpoint, await tenant(store)))
            await stack.enter_async_context(lent.connect(Policy()))
            assert lent.price_per_hour == 5.0
            endpoint.price = 9.0


@pytest.mark.parametrize("answer", ["stop", "resume"])
async def test_an_external_pause_is_respected_or_undone_as_the_policy_says(
    store: Store, tmp_path: Path, answer: str
) -> None:
    endpoint = Scripted(terms=TERMS)
    endpoint.paused_by_others_at = "text 3"
    policy = Policy(concurrency=1, backoff=QUICK, on_foreign_pause=answer)  # type: ignore[arg-type]
    job = job_of([f"text {number}" for number in range(6)], endpoint, tmp_path, policy)
    if answer == "resume":
        assert (await run(job, store)).counts.completed == 6
        assert endpoint.calls == ["resume", "resume", "pause"]
        return
    with pytest.raises(RunStopped, match="endpoint scripted was paused while it was used"):
        await run(job, store)
    assert endpoint.calls == ["resume", "pause"]
    assert (await run(job, store)).counts.completed == 6


@pytest.mark.parametrize(("terms", "left_as"), [(TERMS, EndpointState.SCALED_TO_ZERO), (None, EndpointState.PAUSED)])
async def test_a_timer_is_not_an_external_pause_and_an_unbilled_endpoint_is_always_woken(
    store: Store, tmp_path: Path, terms: Terms | None, left_as: EndpointState
) -> None:
    endpoint = Scripted(terms=terms, paused_by_others_at="text 3", paused_as=left_as)
    policy = Policy(concurrency=1, backoff=QUICK, on_foreign_pause="stop")
    report = await run(job_of([f"text {number}" for number in range(6)], endpoint, tmp_path, policy), store)
    assert report.counts.completed == 6
    assert endpoint.calls == ["resume", "resume", "pause"]


async def test_failed_state_requests_are_repeated(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, silent=3)
    assert (await run(job_of(["a"], endpoint, tmp_path), store)).counts.completed == 1
    assert endpoint.calls == ["resume", "pause"]


async def test_a_pause_request_without_effect_is_repeated(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, deaf=2)
    report = await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause", "pause", "pause"]
    assert (report.session_costs[0].proof or "").startswith("endpoint scripted read as paused at ")


async def test_a_refused_pause_is_not_requested_again_and_stays_owed(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, pause_fails=[EndpointRefused("check what the token may do")])
    with pytest.raises(PauseUnconfirmed, match="check what the token may do"):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause"]
    assert [debt.owed for debt in await store.windows.debts()] == [True]


async def test_a_pause_request_is_repeated_after_any_error(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, pause_fails=[ValueError("our own mistake"), EndpointSilent("no answer")])
    await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause", "pause", "pause"]
    assert await store.windows.debts() == []


async def test_a_stale_state_after_our_resume_is_not_an_external_pause(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, lag=2)
    assert (await run(job_of(["a"], endpoint, tmp_path), store)).counts.completed == 1
    assert endpoint.calls == ["resume", "pause"]


async def test_a_paused_state_that_outlasts_the_lag_is_an_external_pause(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS, lag=3)
    with pytest.raises(RunStopped, match="endpoint scripted was paused while it was used"):
        await run(job_of(["a"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause"]
    resuming = Scripted(terms=TERMS, lag=3)
    policy = Policy(on_foreign_pause="resume")
    assert (await run(job_of(["b"], resuming, tmp_path, policy), store)).counts.completed == 1
    assert resuming.calls == ["resume", "resume", "pause"]


async def test_runs_that_share_an_endpoint_wake_it_once_and_the_last_one_pauses_it(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=TERMS, look_every=2.0)  # if two processes see it paused at once, only one resumes it
    first = job_of([f"text {number}" for number in range(50)], endpoint, tmp_path)
    second = replace(first, name="second", sink=replace(first.sink, path=tmp_path / "second.jsonl"))  # type: ignore[type-var]
    met = anyio.Event()
    endpoint.gate = met
    async with anyio.create_task_group() as group:
        group.start_soon(run, first, store)
        group.start_soon(run, second, store)
        while len({receipt.job for receipt in await store.receipts.since()}) < 2 or not endpoint.asked:
            await anyio.sleep(0.01)
        met.set()
    assert endpoint.calls == ["resume", "pause"]
    assert len({receipt.window_id for receipt in await store.receipts.since()}) == 1


async def test_results_are_delivered_while_the_endpoint_stays_awake_for_the_next_run(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=replace(TERMS, linger=600.0))
    job, stop = job_of(["a"], endpoint, tmp_path), Stop()
    async with anyio.create_task_group() as group:
        group.start_soon(run, job, store, stop)
        while not await anyio.Path(str(job.output)).exists():
            await anyio.sleep(0.01)
        assert endpoint.calls == ["resume"]
        stop.drain()
    assert endpoint.calls == ["resume", "pause"]


async def test_the_state_of_a_shared_endpoint_that_does_not_answer_is_requested_again(store: Store) -> None:
    endpoint = Scripted(terms=TERMS, state=EndpointState.STARTING, moves=True, look_every=600.0, startup_timeout=600.0)
    other = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=60.0)
    window = await store.windows.enter(TERMS, other)
    assert window is not None
    async with anyio.create_task_group() as group:

        async def use() -> None:
            async with using(endpoint, store):
                pass

        group.start_soon(use)
        while endpoint.tries < 3:
            await anyio.sleep(0.01)
        endpoint.state = EndpointState.AWAKE
        await store.windows.saw(window, EndpointState.AWAKE, "running")
    assert endpoint.looks == 2


@pytest.mark.parametrize("limit", [{"max_awake": 0.2}, {"max_cost": 0.2}])
async def test_a_spent_budget_stops_the_run_and_estimates_the_cost_of_the_rest(
    store: Store, tmp_path: Path, limit: Mapping[str, float]
) -> None:
    endpoint = Scripted(terms=TERMS)
    endpoint.slow_after = 10
    policy = Policy(concurrency=1, grace=0.0, **limit)  # type: ignore[arg-type]
    with pytest.raises(RunStopped, match=r"the budget is spent \(.* 10 items left, .* cost about \$"):
        await run(job_of([f"text {number}" for number in range(20)], endpoint, tmp_path, policy), store)
    assert endpoint.calls == ["resume", "pause"]


async def test_a_budget_in_dollars_needs_a_price_and_wakes_nothing_without_one(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, price_per_hour=None))
    with pytest.raises(UsageError, match="set price_per_hour="):
        await run(job_of(["a"], endpoint, tmp_path, Policy(max_cost=1.0)), store)
    assert endpoint.calls == []


async def test_an_unconfirmed_pause_is_reported_and_owed_until_a_sweep(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause_deadline=0.05), pauses=False)
    with pytest.raises(PauseUnconfirmed, match="It may still cost money"):
        await run(job_of(["a"], endpoint, tmp_path), store)
    async with registered(store) as process_id:
        (failed,) = await sweep(store, lambda fields: endpoint, process_id)
        assert failed.failure is not None
        endpoint.pauses = True
        (paid,) = await sweep(store, lambda fields: endpoint, process_id)
        assert paid.proof is not None
        assert await sweep(store, lambda fields: endpoint, process_id) == []


async def test_a_failed_pause_is_reported_if_the_run_is_aborted(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause_deadline=0.05), pauses=False, gate=anyio.Event())

    async def cut_short() -> None:
        async with task_group() as group:
            group.start_soon(run, job_of(["a"], endpoint, tmp_path), store)
            while not endpoint.in_flight:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()

    with pytest.raises(PauseUnconfirmed, match="It may still cost money"):
        await cut_short()


async def test_a_run_that_cannot_record_its_leaving_pauses_an_endpoint_that_another_resumed(tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS)
    async with Store.open(str(tmp_path / "ledger.db"), busy_seconds=0.05) as store:
        first, second = AsyncExitStack(), AsyncExitStack()
        for user in (first, second):
            await user.enter_async_context(using(endpoint, store))
        await first.aclose()
        assert endpoint.calls == ["resume"]
        with locked(store), pytest.raises(LedgerError, match="another process holds it"):
            await second.aclose()
        assert endpoint.calls == ["resume", "pause"]


async def test_a_run_that_cannot_record_its_leaving_spares_an_endpoint_in_use(tmp_path: Path) -> None:
    endpoint = Scripted(terms=TERMS)
    async with Store.open(str(tmp_path / "ledger.db"), busy_seconds=0.05) as store:
        first, second = AsyncExitStack(), AsyncExitStack()
        number = await first.enter_async_context(using(endpoint, store))
        await second.enter_async_context(using(endpoint, store))
        with locked(store), pytest.raises(PauseUnconfirmed, match="other processes seem to use it"):
            await first.aclose()
        assert endpoint.calls == ["resume"]
        await store.runs.leave(number)
        await second.aclose()
        assert endpoint.calls == ["resume", "pause"]


@pytest.mark.parametrize(
    ("found", "calls"), [(EndpointState.PAUSED, ["resume", "pause"]), (EndpointState.AWAKE, list[str]())]
)
async def test_with_an_unreadable_ledger_only_endpoints_that_we_resumed_are_paused(
    store: Store, found: EndpointState, calls: list[str]
) -> None:
    endpoint = Scripted(terms=TERMS, state=found)
    user = AsyncExitStack()
    await user.enter_async_context(using(endpoint, store))
    async with store.database.write() as connection:
        await connection.execute("ALTER TABLE hold RENAME TO lost")
    with pytest.raises(Exception, match="no such table" if calls else "not paused, as other processes seem to use it"):
        await user.aclose()
    assert endpoint.calls == calls


@asynccontextmanager
async def using(endpoint: Scripted, store: Store) -> AsyncIterator[int]:
    """Run a process that uses the endpoint, as its own task; return its number."""
    user, begun, over = await tenant(store), anyio.Event(), anyio.Event()

    async def use() -> None:
        async with awake(endpoint, user) as lent, lent.connect(Policy()):
            begun.set()
            await over.wait()

    using_it = asyncio.create_task(use())
    await begun.wait()
    try:
        yield user.process_id
    finally:
        over.set()
        await using_it


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Keep the ledger locked by a writing process."""
    with closing(DRIVER.connect(store.database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


async def test_every_run_pays_the_debts_of_dead_processes_and_spares_its_own_endpoint(
    store: Store, tmp_path: Path
) -> None:
    dead = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=-1.0)
    other = Scripted(terms=replace(TERMS, endpoint="other"), name="other", state=EndpointState.AWAKE)
    mine = Scripted(terms=TERMS, state=EndpointState.AWAKE)
    for endpoint in (other, mine):
        assert endpoint.terms is not None
        window = await store.windows.enter(endpoint.terms, dead)
        assert window is not None
        await store.windows.owe(window, endpoint.terms, EndpointState.PAUSED)
    safety = Safety(nullcontext, lambda fields: other)
    report = await run_job(RunRequest(job_of(["a"], mine, tmp_path)), store, Progress(), Stop(), safety)
    assert [swept.endpoint for swept in report.swept] == ["other"]
    assert (other.calls, mine.calls) == (["pause"], ["pause"])  # ours was already awake, and is paused once, at the end


async def test_a_starting_endpoint_is_waited_for_and_a_broken_one_is_not(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(fails=EndpointLost("still loading", starting=True), startup_timeout=5.0)
    with pytest.raises(RunStopped, match="lost 3 times in a row"):  # it reports this state, but answers at once
        await run(job_of(["a"], endpoint, tmp_path), store)


async def test_an_endpoint_gets_the_startup_time_that_it_announces_up_to_a_limit(store: Store, tmp_path: Path) -> None:
    loading = EndpointLost("still loading", starting=True, retry_after=0.01)
    endpoint = Scripted(fails=loading, startup_timeout=0.3)
    job = job_of(["a"], endpoint, tmp_path)
    with pytest.raises(RunStopped, match="still loading"):
        await run(job, store)
    assert len(endpoint.asked) > 3
    assert await store.receipts.since() == []


MOMENTS = {
    "process": ["started_at", "lease_until"],
    "run": ["created_at", "started_at"],
    "awake_window": ["opened_at", "asked_at", "resumed_at", "looked_at"],
    "hold": ["since"],
}


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_jump_changes_no_bill_and_leaves_nothing_running(
    store: Store, tmp_path: Path, jump: float
) -> None:
    endpoint = Scripted(terms=TERMS)

    async def while_it_wakes() -> None:
        """Make all recorded times older, as a clock that jumped would see them."""
        async with store.database.write() as connection:
            for table, moments in MOMENTS.items():
                older = ", ".join(f"{moment} = {moment} - :jump" for moment in moments)
                await connection.execute(f"UPDATE {table} SET {older}", {"jump": jump})

    endpoint.before_resume = while_it_wakes
    report = await run(job_of(["a", "b"], endpoint, tmp_path), store)
    assert endpoint.calls == ["resume", "pause"]
    (stay,) = report.session_costs
    assert 0 < stay.spent.seconds < 60
    assert await store.windows.debts() == []
