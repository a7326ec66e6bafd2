"""An endpoint kept awake by a command, or by a job that never pauses, is in the ledger without a live process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.budget import Budget, Budgets, standing
from orchestrator.domain.costs import bill, bill_runs
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.report_data import FOUND_ASLEEP
from orchestrator.domain.terms import LastingHold, Pause, Spent, Terms
from orchestrator.store.windows import Leaving

if TYPE_CHECKING:
    from orchestrator.store import Store

TERMS = Terms("acme/e", {"kind": "test"}, price_per_hour=3600.0)
BY_HAND = Terms("acme/e", {"kind": "test"}, pause=Pause.NEVER, price_per_hour=3600.0)
PAUSED = EndpointState.PAUSED


async def process(store: Store) -> int:
    return await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=60.0)


async def woken(store: Store, until: float | None = None) -> int:
    """Wake it with a command whose process ends."""
    me = await process(store)
    terms = BY_HAND if until is None else TERMS
    window = await store.windows.enter(terms, me, None, "(resume)", LastingHold("ada", until))
    assert window is not None
    assert await store.windows.owe(window, terms, PAUSED)
    await store.runs.leave(me)
    return window


async def used(store: Store) -> tuple[int, int]:
    me = await process(store)
    window = await store.windows.enter(TERMS, me, 7, "talk")
    assert window is not None
    return me, window


async def test_a_held_endpoint_stays_awake_without_a_process_and_is_not_a_debt(store: Store) -> None:
    window = await woken(store)
    assert await store.windows.debts() == []
    assert not await store.windows.claim(window, await process(store))
    assert await store.lasting_holds.of("acme/e") == LastingHold("ada")
    (seen,) = await store.history.windows(0.0)
    assert [(user.kept_by, user.expires_at) for user in seen.users] == [("ada", None)]
    assert not seen.is_debt


async def test_a_killed_command_leaves_the_endpoint_held(store: Store) -> None:
    me = await process(store)
    await store.windows.enter(BY_HAND, me, None, "(resume)", LastingHold("ada"))
    (dead,) = await store.runs.living()
    assert await store.runs.bury(dead)
    assert await store.windows.debts() == []
    assert await store.lasting_holds.of("acme/e") == LastingHold("ada")


async def test_a_run_joins_the_window_leaves_it_awake_and_shares_its_cost(store: Store) -> None:
    window = await woken(store)
    me, entered = await used(store)
    assert entered == window
    assert await store.windows.leave(window, me, Spent(work=1.0)) == (Leaving.KEPT, False)
    receipts = await store.receipts.since()
    assert [receipt.until is None for receipt in receipts] == [True, False]
    later = time.time() + 100
    costs = {cost.what: cost.seconds for cost in bill(receipts, "job", later)}
    assert costs["(resume)"] > 99 > costs["talk"]
    assert set(bill_runs(receipts, later)) == {7}
    assert bill_runs(receipts, later)[7].seconds == costs["talk"]


async def test_a_hold_becomes_a_debt_when_it_expires(store: Store) -> None:
    window = await woken(store, time.time() - 1)
    assert [debt.window_id for debt in await store.windows.debts()] == [window]
    payer = await process(store)
    assert await store.windows.claim(window, payer)
    await store.windows.close(window, payer, PAUSED, "paused", by="sweep", spent=Spent())
    assert all(receipt.until is not None for receipt in await store.receipts.since())


async def test_a_run_active_when_the_hold_expires_pauses_the_endpoint(store: Store) -> None:
    await woken(store, time.time() - 1)
    me, window = await used(store)
    assert (await store.windows.leave(window, me, Spent()))[0] is Leaving.OWED


async def test_waking_an_endpoint_again_replaces_its_deadline(store: Store) -> None:
    window = await woken(store, time.time() - 1)
    later = time.time() + 100
    assert await woken_again(store, later) == window
    assert await store.lasting_holds.of("acme/e") == LastingHold("ada", later)
    assert await store.windows.debts() == []


async def woken_again(store: Store, until: float) -> int | None:
    me = await process(store)
    window = await store.windows.enter(TERMS, me, None, "(resume)", LastingHold("ada", until))
    await store.runs.leave(me)
    return window


async def test_a_manual_pause_is_owed_from_the_request_on(store: Store) -> None:
    window = await woken(store)
    await store.lasting_holds.release("acme/e")
    assert [(debt.window_id, debt.owed) for debt in await store.windows.debts()] == [(window, True)]


async def test_a_window_found_asleep_is_closed_unless_a_process_uses_it(store: Store) -> None:
    window = await woken(store)
    assert await store.lasting_holds.unattended(time.time() - 60) == []  # its state may not show the resume yet
    (kept,) = await store.lasting_holds.unattended(time.time())
    assert (kept.window_id, kept.pause_with) == (window, {"kind": "test"})
    me, _ = await used(store)
    assert await store.lasting_holds.unattended(time.time()) == []
    await store.lasting_holds.lapse("acme/e", PAUSED, "paused")
    assert (await store.receipts.since())[0].billed_to is None
    await store.windows.leave(window, me, Spent())
    await store.lasting_holds.lapse("acme/e", PAUSED, "paused")
    assert {(use.closed_by, use.billed_to is None, use.until is None) for use in await store.receipts.since()} == {
        (FOUND_ASLEEP, False, False)
    }


async def test_a_process_that_woke_an_endpoint_by_hand_and_lives_on_does_not_use_it(store: Store) -> None:
    window = await store.windows.enter(BY_HAND, await process(store), None, "(resume)", LastingHold("ada"))
    assert window is not None
    assert await store.windows.owe(window, BY_HAND, PAUSED)
    assert [kept.window_id for kept in await store.lasting_holds.unattended(time.time() + 1)] == [window]
    await store.lasting_holds.lapse("acme/e", PAUSED, "paused")
    assert await store.lasting_holds.of("acme/e") is None


async def test_a_debt_is_not_closed_when_the_endpoint_is_found_asleep(store: Store) -> None:
    await woken(store, time.time() - 1)
    await store.lasting_holds.lapse("acme/e", PAUSED, "paused")
    assert [debt.owed for debt in await store.windows.debts()] == [True]


async def test_a_held_endpoint_counts_in_the_budget_of_all_jobs(store: Store) -> None:
    await woken(store)
    budgets, later = Budgets(ledger=Budget(max_awake=50.0)), time.time() + 100
    receipts = await store.receipts.after(0.0)
    assert standing(budgets, receipts, 7, "talk", later).whose == "ledger"
    assert standing(Budgets(job=Budget(max_awake=50.0)), receipts, 7, "talk", later).whose is None


async def test_a_run_that_has_to_resume_an_endpoint_pauses_it_and_does_not_pay_for_its_sleep(store: Store) -> None:
    await woken(store)
    me, window = await used(store)
    before = time.time()
    assert await store.windows.owe(window, TERMS, PAUSED, process_id=me)
    mine, hers = sorted(await store.receipts.since(), key=lambda use: use.run_id is None)
    assert (mine.window_id, mine.billed_to) == (window, None)
    assert mine.billed_from >= before
    assert (hers.job, hers.closed_by, hers.until is None) == ("(resume)", FOUND_ASLEEP, False)
    (shown,) = await store.history.windows(0.0)
    assert shown.billed_to is None
    assert (await store.windows.leave(window, me, Spent()))[0] is Leaving.OWED


async def test_a_job_that_never_pauses_keeps_awake_what_it_resumed(store: Store) -> None:
    me = await process(store)
    window = await store.windows.enter(BY_HAND, me, 7, "talk")
    assert window is not None
    assert await store.windows.owe(window, BY_HAND, PAUSED, process_id=me)
    assert (await store.windows.leave(window, me, Spent()))[0] is Leaving.KEPT
    assert await store.windows.debts() == []
    assert await store.lasting_holds.of("acme/e") == LastingHold("job talk")


@pytest.mark.parametrize("shared", [False, True])
async def test_an_endpoint_that_was_never_woken_leaves_no_receipt(store: Store, *, shared: bool) -> None:
    me = await process(store)
    window = await store.windows.enter(BY_HAND, me, None, "(resume)", LastingHold("ada"))
    assert window is not None
    if shared:
        await used(store)
    await store.lasting_holds.forget(window, me)
    assert [receipt.job for receipt in await store.receipts.since()] == ["talk"] * shared
