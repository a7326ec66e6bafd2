"""Leases: those of a dead process are released when they expire, and a live process keeps its own."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator.domain.run import Spec
from orchestrator.engine.awake.reaper import BEAT, LEASE, reap
from orchestrator.engine.daemon import serve
from orchestrator.engine.daemon.serve import Service
from orchestrator.engine.stop import Stop
from orchestrator.store.row_classes import NewItem
from tests.engine.scripted import Scripted, job_of, outputs, run
from tests.past import clock_at

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.queue import Claim
    from orchestrator.store import Store

BETWEEN_LOOKS = 30.0  # the minimum seconds between two checks of a daemon


async def left_behind(store: Store) -> tuple[int, int]:
    """Create a run whose items are all leased by a process on another machine with a recent heartbeat."""
    far = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=LEASE)
    taken = await store.runs.take(Spec("job", "f", "s"), far)
    plan = await store.snapshots.ingest(taken.id, taken.job_id, 0, [[NewItem("i", "h", '"text"', None)]])
    await store.runs.ingested(taken.id, total=1, plan=plan, input_sha256="s")
    assert await store.items.lease(taken.id, far, 1)
    return taken.id, far


async def column(store: Store, sql: str) -> list[Any]:
    async with store.database.read() as connection:
        return list((await connection.execute(sql)).scalars())


async def test_leases_of_a_dead_process_become_available_exactly_when_they_expire(store: Store) -> None:
    with clock_at(time.time()) as clock:
        run_id, _ = await left_behind(store)
        clock.now += LEASE - 1
        await reap(store)
        assert await column(store, "SELECT state FROM chunk") == ["leased"]
        clock.now += 2
        await reap(store)
        assert await column(store, "SELECT state FROM chunk") == ["available"]
        assert await column(store, "SELECT strikes FROM chunk") == [1]  # an item of it may have killed the process
        heir = await store.runs.register(host="elsewhere", pid=2, pid_started=0.0, lease=LEASE)
        assert (await store.runs.take(Spec("job", "f", "s"), heir)).id == run_id
        assert len(await store.items.lease(run_id, heir, 1)) == 1


async def test_a_lease_begins_when_it_is_written_however_long_that_waits(store: Store) -> None:
    with clock_at(time.time()) as clock:
        async with anyio.create_task_group() as group, store.database.write():
            group.start_soon(partial(store.runs.register, host="h", pid=1, pid_started=0.0, lease=LEASE))
            await anyio.wait_all_tasks_blocked()
            clock.now += LEASE
        run = await store.runs.take(Spec("job", "f", "s"), 1)
        async with anyio.create_task_group() as group, store.database.write() as connection:
            until = (await connection.execute("SELECT lease_until FROM process")).scalar_one()
            assert until == pytest.approx(clock.now + LEASE, abs=5)
            group.start_soon(partial(store.runs.beat, 1, LEASE, run_id=run.id, rate=None))
            await anyio.wait_all_tasks_blocked()
            clock.now += LEASE
        assert await column(store, "SELECT lease_until FROM process") == pytest.approx([clock.now + LEASE], abs=5)


async def test_a_daemon_looks_for_dead_processes_continuously(store: Store) -> None:
    stop = Stop()

    async def nothing(_claim: Claim, _stop: Stop) -> int:
        raise AssertionError("nothing is queued")

    service = Service(nothing, lambda _fields: Scripted(), lambda _line: None, lambda: None, runs=1)
    with clock_at(time.time()) as clock:
        await left_behind(store)
        async with anyio.create_task_group() as group:
            group.start_soon(serve.serve, store, service, stop)
            while not await store.queue.served():
                await anyio.sleep(0.001)
            assert await column(store, "SELECT state FROM chunk") == ["leased"]
            clock.now += LEASE + 1
            with anyio.fail_after(BETWEEN_LOOKS + 1):
                while await column(store, "SELECT state FROM chunk") != ["available"]:
                    await anyio.sleep(1.0)
            stop.drain()


async def test_a_process_with_heartbeats_keeps_its_work_however_long_a_request_takes(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(gate=anyio.Event())
    job = job_of(["a"], endpoint, tmp_path)
    with clock_at(time.time()) as clock:
        async with anyio.create_task_group() as group:
            group.start_soon(run, job, store)
            while not endpoint.in_flight:
                await anyio.sleep(0.001)
            async with (
                store.database.write() as connection
            ):  # for a process on another machine, only the lease is visible
                await connection.execute("UPDATE process SET host = 'elsewhere'")
            for _ in range(10):
                clock.now += LEASE - 1
                with anyio.fail_after(BEAT + 2):
                    while (await column(store, "SELECT lease_until FROM process"))[0] < clock.now + LEASE - 1:
                        await anyio.sleep(1.0)
                await reap(store)
                assert await column(store, "SELECT state FROM chunk") == ["leased"]
            assert endpoint.gate is not None
            endpoint.gate.set()
    assert outputs(job) == {"i0": "A"}
    assert endpoint.asked == [["a"]]
