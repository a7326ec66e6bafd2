"""serve: the daemon. Takes what is due out of the queue, has it executed, fires schedules, pays debts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.queue import Claim
from orchestrator.engine.reaper import BEAT, LEASE, enter, leave, reap
from orchestrator.engine.sweep import sweep
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from orchestrator.engine.sweep import Revive
    from orchestrator.store import Store

LOOK = 0.5  # seconds between two looks at the queue
DEBTS = 30.0  # seconds between two looks at what dead processes owe
_LAST_DEBTS = 30.0  # seconds that paying those of killed children may take at the end

Execute = Callable[[Claim], Awaitable[int]]  # has a claimed run executed by another process; gives its exit code


@dataclass(frozen=True, slots=True)
class Duty:
    """Something the daemon does every `every` seconds. What goes wrong with it is said, and does not stop the rest."""

    name: str
    every: float
    do: Callable[[float], Awaitable[object]]  # gets the time


@dataclass(frozen=True, slots=True)
class Service:
    """What a daemon works with. `runs`: how many it has executed at once. `alive` is called while all goes well."""

    execute: Execute
    revive: Revive
    say: Callable[[str], None]
    alive: Callable[[], None]
    runs: int
    duties: tuple[Duty, ...] = ()


async def serve(store: Store, service: Service, stop: anyio.Event) -> None:
    """Serve until `stop` is set; then nothing more is taken, and the block ends when all executions have.

    The ledger's trouble ends it: `LedgerError`, when the executions that it has begun are over.
    """
    daemon = _Daemon(store, service, await enter(store, serves=True))
    try:
        async with task_group() as living:
            living.start_soon(daemon.stay_alive)
            async with task_group() as executions, task_group() as duties:
                duties.start_soon(daemon.pay_debts)
                for duty in service.duties:
                    duties.start_soon(daemon.do, duty)
                duties.start_soon(_cancel_at, stop, duties)
                await daemon.take(executions)
            with anyio.move_on_after(_LAST_DEBTS):  # what ends with us, such as a control group, may end their guards
                await daemon.pay()
            living.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await daemon.leave()


async def _cancel_at(stop: anyio.Event, group: TaskGroup) -> None:
    await stop.wait()
    group.cancel_scope.cancel()


class _Daemon:
    def __init__(self, store: Store, service: Service, process_id: int) -> None:
        self._store = store
        self._service = service
        self._process_ids = [process_id]  # the last one is what it is known by now
        self._executing: set[int] = set()

    async def take(self, executions: TaskGroup) -> None:
        """Have executed what is due, as long as there is room."""
        while True:
            await self._store.database.check_still_there()
            while await self._has_room():
                run_id = await self._store.queue.claim(self._process_ids[-1], time.time())
                if run_id is None:
                    break
                self._executing.add(run_id)
                executions.start_soon(self._execute, Claim(run_id, self._process_ids[-1]))
            await anyio.sleep(LOOK)

    async def _has_room(self) -> bool:
        """Runs that have settled everything, and only deliver and pause, take no room."""
        if len(self._executing) < self._service.runs:
            return True
        return await self._store.queue.unfinished(list(self._executing)) < self._service.runs

    async def _execute(self, claim: Claim) -> None:
        try:
            code = await self._service.execute(claim)
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError):  # a full disk: the reaper puts it right
                await self._store.queue.unclaim(claim)
                await reap(self._store)
            self._executing.discard(claim.run_id)
        self._service.say(f"run {claim.run_id} ended with exit code {code}")

    async def stay_alive(self) -> None:
        """Stay known to be alive. Taken for dead after a long sleep, it comes back under another number."""
        while True:
            if not await self._store.runs.prolong(self._process_ids[-1], LEASE):
                self._process_ids.append(await enter(self._store, serves=True))
                self._service.say("silent for too long, so others may have taken over; serving again")
            self._service.alive()
            await anyio.sleep(BEAT)

    async def pay_debts(self) -> None:
        """Pause what dead processes left awake, again and again."""
        while True:
            await self.pay()
            await anyio.sleep(DEBTS)

    async def pay(self) -> None:
        """Pause what dead processes left awake."""
        await reap(self._store)
        for swept in await sweep(self._store, self._service.revive, self._process_ids[-1]):
            self._service.say(swept.proof or f"endpoint {swept.endpoint} is still owed a pause: {swept.failure}")

    async def do(self, duty: Duty) -> None:
        """Do one duty again and again."""
        while True:
            try:
                await duty.do(time.time())
            except OrchestratorError as failure:
                self._service.say(f"{duty.name}: {failure}")
            await anyio.sleep(duty.every)

    async def leave(self) -> None:
        """Hold nothing any more."""
        for process_id in self._process_ids:
            await leave(self._store, process_id)
