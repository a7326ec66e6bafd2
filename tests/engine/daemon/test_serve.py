"""Trouble with one run does not stop the daemon from executing the others."""

from __future__ import annotations

import errno
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.errors import LedgerLocked
from orchestrator.domain.queue import Claim, Submission
from orchestrator.engine.daemon import serve
from orchestrator.engine.daemon.serve import Duty, Service
from orchestrator.engine.stop import Stop
from tests.commands import DEADLINE
from tests.engine.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.engine.daemon.serve import Execute
    from orchestrator.store import Store


@asynccontextmanager
async def serving(store: Store, execute: Execute, *duties: Duty) -> AsyncIterator[list[str]]:
    """Run a daemon; yield its messages."""
    said: list[str] = []
    stop = Stop()
    service = Service(execute, lambda _fields: Scripted(), said.append, lambda: None, runs=2, duties=duties)
    async with anyio.create_task_group() as group:
        group.start_soon(serve.serve, store, service, stop)
        with anyio.fail_after(DEADLINE):
            yield said
        stop.drain()


async def submitted(store: Store, job: str) -> int:
    return (await store.queue.submit(Submission(job, {}, [job], time.time())))[0]


@pytest.mark.parametrize(
    "trouble",
    [
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file", "/usr/bin/gone"),
        RuntimeError("can't start new thread"),
    ],
)
async def test_a_run_whose_process_cannot_start_is_requeued_with_the_reason_and_the_others_continue(
    store: Store, trouble: Exception
) -> None:
    bad, good = await submitted(store, "bad"), await submitted(store, "good")
    going, end = anyio.Event(), anyio.Event()

    async def execute(claim: Claim, _stop: Stop) -> int:
        if claim.run_id == bad:
            await going.wait()
            raise trouble
        going.set()
        await end.wait()
        return 0

    async with serving(store, execute):
        while (await store.runs.find(str(bad))).why is None:
            await anyio.sleep(0.01)
        requeue, running = await store.runs.find(str(bad)), await store.runs.find(str(good))
        end.set()
    assert str(trouble) in str(requeue.why)
    assert requeue.due_at is not None
    assert requeue.due_at > time.time() + 25
    assert running.holder is not None


async def test_the_delay_grows_each_time_no_process_can_be_started(store: Store) -> None:
    run = await submitted(store, "job")
    process = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60, serves=True)
    waits = []
    for _ in range(3):
        now = time.time() + 1e6
        assert await store.queue.claim(process, now) == run
        await store.queue.postpone(Claim(run, process), "why", now)
        await store.queue.unclaim(Claim(run, process))
        (found,) = await store.queue.listed(now)
        waits.append(round(found.due_at - now))
        async with store.database.write() as connection:
            await connection.execute("UPDATE run SET due_at = 0")
    assert waits == [30, 60, 120]


async def test_a_failing_duty_is_reported_once_and_repeated(store: Store) -> None:
    tried = 0

    async def fails(_now: float) -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.ENFILE, "Too many open files in system")

    async def nothing(_claim: Claim, _stop: Stop) -> int:
        raise AssertionError("nothing is queued")

    async with serving(store, nothing, Duty("schedules", 0.001, fails)) as said:
        while tried < 10:
            await anyio.sleep(0.001)
    assert sum("schedules: OSError" in line for line in said) == 1


async def test_debts_left_at_the_end_are_reported_and_the_daemon_ends_cleanly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_store: Store) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def nothing(_claim: Claim, _stop: Stop) -> int:
        raise AssertionError("nothing is queued")

    async with serving(store, nothing) as said:
        while not await store.queue.served():
            await anyio.sleep(0.001)
        monkeypatch.setattr(serve, "reap", fails)
    assert any("debts: OSError" in line for line in said)
    assert not await store.queue.served()


async def test_a_locked_ledger_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await submitted(store, "job")
    claim, tried, executed = store.queue.claim, 0, anyio.Event()

    async def locked(process_id: int, now: float) -> int | None:
        nonlocal tried
        tried += 1
        if tried <= 2:
            raise LedgerLocked("held by process 7")
        return await claim(process_id, now)

    async def execute(_claim: Claim, _stop: Stop) -> int:
        executed.set()
        return 0

    monkeypatch.setattr(store.queue, "claim", locked)
    async with serving(store, execute) as said:
        await executed.wait()
    assert "queue: held by process 7" in said
