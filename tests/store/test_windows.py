from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.costs import bill
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Billed, Pause, Spent, Terms
from orchestrator.store.windows import Leaving

if TYPE_CHECKING:
    from orchestrator.store import Store

TERMS = Terms("acme/e", {"kind": "test"}, price_per_hour=3.6)
PAUSED = EndpointState.PAUSED


async def process(store: Store, lease: float = 60.0) -> int:
    return await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=lease)


async def die(store: Store, number: int) -> None:
    (dead,) = [known for known in await store.runs.living() if known.id == number]
    assert await store.runs.bury(dead)


async def entered(store: Store, number: int, terms: Terms = TERMS, job: str = "j") -> int:
    window = await store.windows.enter(terms, number, 1, job)
    assert window is not None
    return window


async def closed(store: Store, window: int, number: int) -> None:
    await store.windows.close(window, number, PAUSED, "paused", by="run", spent=Spent(1, 2, 3, 4))


async def test_only_the_last_holder_pauses_and_nothing_enters_until_then(store: Store) -> None:
    one, two, three = [await process(store) for _ in range(3)]
    window = await entered(store, one)
    await store.windows.owe(window, TERMS, PAUSED)
    assert await entered(store, two) == window
    assert await store.windows.leave(window, one, Spent()) == (Leaving.STILL_HELD, False)
    assert await store.windows.leave(window, two, Spent()) == (Leaving.OWED, False)
    assert await store.windows.enter(TERMS, three) is None
    assert await store.windows.debts() == []  # it is being paid
    await closed(store, window, two)
    assert await entered(store, three) != window


async def test_a_process_that_dies_while_pausing_leaves_a_debt_to_the_next_one(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    await store.windows.owe(window, TERMS, PAUSED)
    await store.windows.leave(window, one, Spent())
    await die(store, one)
    assert [debt.window_id for debt in await store.windows.debts()] == [window]
    assert await entered(store, two) == window
    assert await store.windows.leave(window, two, Spent()) == (Leaving.OWED, False)


@pytest.mark.parametrize(
    ("pause", "found", "resumed", "leaving", "to_zero"),
    [
        (Pause.IF_RESUMED, EndpointState.PAUSED, True, Leaving.OWED, False),
        (Pause.IF_RESUMED, EndpointState.SCALED_TO_ZERO, True, Leaving.OWED, True),
        (Pause.IF_RESUMED, EndpointState.AWAKE, False, Leaving.NOT_OURS, False),
        (Pause.ALWAYS, EndpointState.AWAKE, False, Leaving.OWED, False),
        (Pause.ALWAYS, EndpointState.SCALED_TO_ZERO, True, Leaving.OWED, False),
        (Pause.NEVER, EndpointState.PAUSED, True, Leaving.NOT_OURS, False),
        (Pause.SCALE_TO_ZERO, EndpointState.AWAKE, False, Leaving.OWED, True),
        (Pause.SCALE_TO_ZERO, EndpointState.PAUSED, True, Leaving.OWED, True),
    ],
)
async def test_the_debt_depends_on_the_initial_state_and_the_requested_pause(
    store: Store, pause: Pause, found: EndpointState, *, resumed: bool, leaving: Leaving, to_zero: bool
) -> None:
    me, terms = await process(store), Terms("acme/e", pause=pause)
    window = await entered(store, me, terms)
    await store.windows.take_on(window, terms, None)
    if resumed:
        await store.windows.owe(window, terms, found)
    assert await store.windows.leave(window, me, Spent()) == (leaving, to_zero)
    await store.runs.leave(me)  # without having paused it
    assert [debt.owed for debt in await store.windows.debts()] == [True] * (leaving is Leaving.OWED)


async def test_a_debt_is_claimed_by_one_process_and_is_a_debt_again_if_that_fails(store: Store) -> None:
    dead, one, two = [await process(store) for _ in range(3)]
    window = await entered(store, dead)
    await store.windows.owe(window, TERMS, PAUSED)
    assert await store.windows.debts() == []
    await die(store, dead)
    assert await store.windows.claim(window, one)
    assert not await store.windows.claim(window, two)
    await store.windows.drop(window, one, Spent())
    assert await store.windows.claim(window, two)
    await closed(store, window, two)
    assert await store.windows.debts() == []
    assert not await store.windows.claim(window, one)


async def test_a_window_without_debt_ends_with_its_dead_holder(store: Store) -> None:
    dead = await process(store)
    window = await entered(store, dead)
    await die(store, dead)
    assert [debt.owed for debt in await store.windows.debts()] == [False]
    assert await entered(store, await process(store)) != window


async def test_a_process_taken_for_dead_resumes_nothing(store: Store) -> None:
    silent, other = await process(store), await process(store)
    window = await entered(store, silent)
    assert await entered(store, other) == window
    await die(store, silent)
    assert not await store.windows.owe(window, TERMS, PAUSED, process_id=silent)
    assert await store.windows.seen(window) is None
    assert await store.windows.owe(window, TERMS, PAUSED, process_id=other)


async def test_a_process_that_left_a_window_resumes_nothing_in_it(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    await entered(store, two)
    await store.windows.leave(window, one, Spent())
    await entered(store, one, Terms("acme/other"))
    assert not await store.windows.owe(window, TERMS, PAUSED, process_id=one)


async def test_holders_share_periodic_state_checks_and_their_results(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    await entered(store, two)
    assert await store.windows.seen(window) is None
    assert await store.windows.may_look(window, 60.0)
    assert not await store.windows.may_look(window, 60.0)
    await store.windows.saw(window, EndpointState.STARTING, "initializing")
    assert await store.windows.seen(window) == (EndpointState.STARTING, "initializing")
    assert await store.windows.may_look(window, 0.0)


@pytest.mark.parametrize("turn", ["asked_at", "looked_at"])
async def test_a_turn_in_the_future_comes_from_a_clock_that_was_set_back(store: Store, turn: str) -> None:
    window = await entered(store, await process(store))
    async with store.database.write() as connection:
        future = f"UPDATE awake_window SET {turn} = :later WHERE id = :window"
        await connection.execute(future, {"later": time.time() + 3600, "window": window})
    if turn == "asked_at":
        assert await store.windows.owe(window, TERMS, PAUSED, again_after=60.0)
        assert not await store.windows.owe(window, TERMS, PAUSED, again_after=60.0)
    else:
        assert await store.windows.may_look(window, 60.0)
        assert not await store.windows.may_look(window, 60.0)


@pytest.mark.parametrize("turn", ["asked_at", "looked_at"])
async def test_a_turn_taken_while_waiting_for_the_ledger_belongs_to_another_process(store: Store, turn: str) -> None:
    me = await process(store)
    window, mine = await entered(store, me), []

    async def take_turn() -> None:
        if turn == "asked_at":
            mine.append(await store.windows.owe(window, TERMS, PAUSED, again_after=60.0))
        else:
            mine.append(await store.windows.may_look(window, 60.0))

    async with anyio.create_task_group() as group, store.database.write() as connection:
        group.start_soon(take_turn)
        await anyio.wait_all_tasks_blocked()
        others = f"UPDATE awake_window SET {turn} = :now WHERE id = :window"
        await connection.execute(others, {"now": time.time(), "window": window})
    assert mine == [False]


async def test_the_price_is_stored_in_the_window(store: Store) -> None:
    window = await entered(store, await process(store), Terms("acme/e"))
    assert await store.windows.price(window) is None
    await entered(store, await process(store), TERMS)
    assert await store.windows.price(window) == 3.6
    await store.windows.take_on(window, TERMS, None)
    await entered(store, await process(store), Terms("acme/e"))
    assert await store.windows.price(window) == 3.6
    await store.windows.take_on(window, TERMS, 7.2)
    assert await store.windows.price(window) == 7.2


async def test_holders_are_live_processes_that_have_not_left(store: Store) -> None:
    one, two, three = [await process(store) for _ in range(3)]
    window = await entered(store, one, job="a")
    await entered(store, two, job="b")
    await entered(store, three, job="c")
    await entered(store, three, Terms("acme/other"))
    await store.windows.leave(window, one, Spent())
    await die(store, two)
    assert [(held.process_id, held.job, held.run_id) for held in await store.windows.holders("acme/e")] == [
        (three, "c", 1)
    ]
    await closed(store, window, three)
    assert await store.windows.holders("acme/e") == []


async def test_a_use_ends_when_its_process_leaves_and_a_window_when_it_is_closed(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    await store.windows.owe(window, TERMS, PAUSED)
    await entered(store, two)
    before = time.time()
    await store.windows.leave(window, one, Spent())
    left, using = await store.receipts.since()
    assert left.since < before <= (left.until or 0.0)
    assert (using.since < before, using.until, using.billed_to) == (True, None, None)
    await closed(store, window, two)
    assert [one.billed_to is not None for one in await store.receipts.after(before)] == [True, True]
    assert await store.receipts.after(time.time() + 60) == []
    assert await store.receipts.since(endpoint="acme/other") == []
    assert await store.receipts.since(moment=time.time() + 60) == []


async def test_the_death_of_a_process_does_not_extend_a_finished_use(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    await entered(store, two)
    await store.windows.leave(window, one, Spent(work=1))
    before = (await store.receipts.since())[0]
    await die(store, one)
    assert (await store.receipts.since())[0] == before


async def test_a_shared_window_is_billed_once_and_split_between_its_jobs(store: Store) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one, job="a")
    await store.windows.owe(window, TERMS, PAUSED)
    await entered(store, two, job="b")
    await store.windows.leave(window, one, Spent(work=1))
    await store.windows.leave(window, two, Spent())
    await closed(store, window, two)
    receipts = await store.receipts.since()
    assert [(r.job, r.spent) for r in receipts] == [("a", Spent(work=1)), ("b", Spent(1, 2, 3, 4))]
    now = receipts[0].billed_to or 0.0
    (whole,) = bill(receipts, "endpoint", now)
    assert whole.what == "acme/e"
    assert whole.seconds == pytest.approx(now - receipts[0].billed_from)
    assert whole.dollars == pytest.approx(whole.seconds * 0.001)
    parts = bill(receipts, "job", now)
    assert [part.what for part in parts] == ["a", "b"]
    assert sum(part.seconds for part in parts) == pytest.approx(whole.seconds)


async def test_a_member_that_is_started_in_a_window_found_awake_owes_a_pause_unless_the_process_is_dead(
    store: Store,
) -> None:
    one, two = await process(store), await process(store)
    window = await entered(store, one)
    assert await store.windows.would_leave(window, one) == (Leaving.NOT_OURS, False)
    assert not await store.windows.owe_member(window, TERMS, two)  # it does not hold the window
    assert await store.windows.owe_member(window, TERMS, one)
    assert await store.windows.leave(window, one, Spent()) == (Leaving.OWED, False)


async def test_the_receipt_has_what_the_provider_bills(store: Store) -> None:
    one = await process(store)
    window = await entered(store, one)
    assert (await store.windows.label(window)).startswith(f"{window}-")
    await store.windows.owe(window, TERMS, PAUSED)
    await store.windows.close(window, one, PAUSED, "gone", by="run", spent=Spent(), billed=Billed(120.0, 0.25))
    (receipt,) = await store.receipts.since()
    assert (receipt.billed_seconds, receipt.billed_dollars) == (120.0, 0.25)
    assert [line.dollars for line in bill([receipt], "endpoint", time.time())] == [0.25]
