"""The states of a run: which transitions exist, and that no others happen, whichever process tries."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.queue import Claim
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.domain.schedule import Cron
from orchestrator.domain.timetable import Declared
from orchestrator.engine.status import state_word
from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER
from tests.ledgers import forgive
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW, ENDED = 1e9, 7.0
INGESTING, OPEN, FINISHED, FAILED, STOPPED, CANCELLED, SUPERSEDED = RunState
UNFINISHED = (INGESTING, OPEN, FAILED, STOPPED)

Act = Callable[[Store, Claim, str], Awaitable[object]]


async def take(store: Store, claim: Claim, job: str, fingerprint: str) -> None:
    await store.runs.take(Spec(job, fingerprint, "s"), claim.process_id, claim)


async def run_by_hand(store: Store, claim: Claim, job: str, fingerprint: str) -> None:
    """Take a run that no process executes and that is not queued, as when the job is run manually."""
    await store.runs.leave(claim.process_id)
    await change(store, "UPDATE run SET due_at = NULL WHERE id = :run", run=claim.run_id)
    await store.runs.take(Spec(job, fingerprint, "s"), await process(store))


async def next_slot(store: Store, _claim: Claim, job: str) -> None:
    cron = Cron("0 * * * *", overlap="cancel_other")
    await store.schedules.put(Declared(job, {"jobfile": job}, ["e"], cron), "file", NOW)
    await store.schedules.fire_now(job, NOW)


async def die(store: Store, claim: Claim, _job: str) -> None:
    for one in await store.runs.living():
        if one.id == claim.process_id:
            await store.runs.bury(one)
            await store.items.expire(one.id)


def ends(state: RunState) -> Act:
    return lambda store, claim, _: store.runs.end(claim.run_id, claim.process_id, state)


def claimed(name: str, **values: object) -> Act:
    return lambda store, claim, _: getattr(store.queue, name)(claim, **values)


# The actions and the state changes that they make. All other states stay unchanged.
TRANSITIONS: dict[str, tuple[Act, dict[RunState, RunState]]] = {
    "its snapshot is complete": (
        lambda store, claim, _: store.runs.ingested(claim.run_id, total=0, plan=Plan(), input_sha256="s"),
        {INGESTING: OPEN},
    ),
    "there is something to do again": (
        lambda store, claim, _: store.runs.reopen(claim.run_id),
        dict.fromkeys((FINISHED, FAILED, STOPPED), OPEN),
    ),
    "its holder has finished it": (ends(FINISHED), dict.fromkeys((OPEN, FAILED, STOPPED), FINISHED)),
    "its holder fails": (ends(FAILED), dict.fromkeys((INGESTING, OPEN, FINISHED, STOPPED), FAILED)),
    "its holder stops": (ends(STOPPED), dict.fromkeys((INGESTING, OPEN, FINISHED, FAILED), STOPPED)),
    "a person cancels it": (
        lambda store, claim, _: store.runs.cancel(claim.run_id),
        dict.fromkeys(UNFINISHED, CANCELLED),
    ),
    "the next slot replaces it": (next_slot, dict.fromkeys(UNFINISHED, CANCELLED)),
    "it cannot begin": (claimed("fail", why="w", owed=False), dict.fromkeys((INGESTING, OPEN, STOPPED), FAILED)),
    "it is taken up, the same": (partial(take, fingerprint="f"), {INGESTING: SUPERSEDED}),
    "it is taken up, changed": (partial(take, fingerprint="g"), dict.fromkeys(UNFINISHED, SUPERSEDED)),
    "the job is run by hand, the same": (partial(run_by_hand, fingerprint="f"), {INGESTING: SUPERSEDED}),
    "the job is run by hand, changed": (partial(run_by_hand, fingerprint="g"), dict.fromkeys(UNFINISHED, SUPERSEDED)),
    "it is delivered": (lambda store, claim, _: store.runs.delivered(claim.run_id, claim.process_id), {}),
    "it is requeued": (claimed("requeue", at=NOW, why="w", fruitless=True), {}),
    "it leaves the queue": (claimed("leave"), {}),
    "it is unclaimed": (claimed("unclaim"), {}),
    "its items are forgiven": (lambda store, claim, _: forgive(store, claim.run_id), {}),
    "its process dies": (die, {}),
}


@pytest.fixture
async def ledger() -> AsyncIterator[Store]:
    """Open a ledger that does not wait for the disk."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        async with Store.open(str(Path(folder) / "ledger.db")) as store:
            yield store


async def process(store: Store) -> int:
    return await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)


async def change(store: Store, sql: str, **values: object) -> None:
    async with store.database.write() as connection:
        await connection.execute(sql, values)


async def standing(store: Store, run_id: int) -> tuple[RunState, float | None]:
    async with store.database.read() as connection:
        statement = "SELECT state, finished_at FROM run WHERE id = :run"
        row = (await connection.execute(statement, {"run": run_id})).one()
    return RunState(row.state), row.finished_at


async def run_in(store: Store, state: RunState, job: str) -> Claim:
    """Create a run in that state, queued and held by a process, so that every action could affect it."""
    me = await process(store)
    run = await store.runs.take(Spec(job, "f", "s"), me)
    await change(
        store,
        "UPDATE run SET state = :state, finished_at = :at, due_at = 1, input_sha256 = 's' WHERE id = :run",
        run=run.id,
        state=state,
        at=ENDED if state.ended else None,
    )
    return Claim(run.id, me)


@pytest.mark.parametrize("what", TRANSITIONS)
async def test_only_listed_transitions_happen_and_a_run_has_an_end_exactly_when_it_has_ended(
    ledger: Store, what: str
) -> None:
    act, changes = TRANSITIONS[what]
    for state in RunState:
        claim = await run_in(ledger, state, f"job-{state}")
        await act(ledger, claim, f"job-{state}")
        after, finished_at = await standing(ledger, claim.run_id)
        assert after is changes.get(state, state), f"{state}: {what}"
        if after is state and state.ended:
            assert finished_at == ENDED  # its end time is unchanged
        else:
            assert (finished_at is not None) == after.ended


@pytest.mark.parametrize("held", [0, 1])
async def test_runs_are_found_by_the_word_that_people_read(ledger: Store, held: int) -> None:
    for state in RunState:
        await run_in(ledger, state, f"job-{state}")
    await change(ledger, "UPDATE run SET held = :held", held=held)
    words = {run.id: state_word(run) for run in await ledger.runs.newest(10)}
    for word in set(words.values()):
        found = {run.id for run in await ledger.runs.newest(10, state=word)}
        assert found == {number for number, said in words.items() if said == word}
    assert "cancelled" in words.values()  # although its process has not left it yet


def test_cancelled_and_superseded_runs_stay_so_and_only_a_retry_reopens_a_finished_one() -> None:
    leads = {state: {what for what, (_, changes) in TRANSITIONS.items() if state in changes} for state in RunState}
    assert not leads[CANCELLED] | leads[SUPERSEDED]
    # the last two: its holder, before it has delivered, or when it could not pause the endpoint
    assert leads[FINISHED] == {"there is something to do again", "its holder fails", "its holder stops"}


async def test_a_delivered_run_stays_finished_if_its_holder_stops_while_waiting_for_others(
    ledger: Store,
) -> None:
    claim = await run_in(ledger, FINISHED, "job")
    await ledger.runs.delivered(claim.run_id, claim.process_id)
    await ledger.runs.end(claim.run_id, claim.process_id, STOPPED)
    assert await standing(ledger, claim.run_id) == (FINISHED, ENDED)


@pytest.mark.parametrize("state", RunState)
async def test_the_ledger_rejects_an_end_without_a_time_and_a_time_without_an_end(
    ledger: Store, state: RunState
) -> None:
    claim = await run_in(ledger, state, "job")
    at = None if state.ended else ENDED
    with pytest.raises(DRIVER.IntegrityError, match="ck_run_finished"):
        await change(ledger, "UPDATE run SET finished_at = :at WHERE id = :run", run=claim.run_id, at=at)
