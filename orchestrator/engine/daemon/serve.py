"""Serve: the daemon. Executes due runs from the queue, fires schedules, pays debts."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import LedgerLocked, OrchestratorError, described
from orchestrator.domain.queue import Claim
from orchestrator.engine.awake.reaper import BEAT, LEASE, enter, leave, reap
from orchestrator.engine.awake.sweep import sweep
from orchestrator.engine.daemon.loading import TOO_SLOW
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskGroup

    from orchestrator.engine.awake.sweep import Revive
    from orchestrator.engine.stop import Stop
    from orchestrator.store import Store

LOOK = 0.5  # seconds between two checks of the queue
DEBTS = 30.0  # seconds between two checks for debts of dead processes
_LAST_DEBTS = 30.0  # at most this many seconds at the end to pay debts of killed children

# executes a claimed run in another process, which is told to stop when `Stop` is requested; returns its exit code
Execute = Callable[[Claim, "Stop"], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Duty:
    """Something the daemon does every `every` seconds. A failure is reported and does not stop the rest."""

    name: str
    every: float
    do: Callable[[float], Awaitable[object]]  # called with the current time


@dataclass(frozen=True, slots=True)
class Service:
    """What a daemon works with. `runs`: how many it executes at once. `alive` is called while all goes well."""

    execute: Execute
    revive: Revive
    say: Callable[[str], None]
    alive: Callable[[], None]
    runs: int
    duties: tuple[Duty, ...] = ()


async def serve(store: Store, service: Service, stop: Stop) -> None:
    """Serve until `stop` is requested; then take nothing more, and return when all executions have ended.

    Raises `LedgerError` if the ledger fails, once the executions that have begun are over.
    """
    daemon = _Daemon(store, service, await enter(store, serves=True), stop)
    debts = Duty("debts", DEBTS, daemon.pay)
    try:
        async with task_group() as living:
            living.start_soon(daemon.stay_alive)
            async with task_group() as executions:
                with stop.while_running():
                    async with task_group() as duties:
                        for duty in (debts, *service.duties):
                            duties.start_soon(daemon.do, duty)
                        await daemon.take(executions)
            with anyio.move_on_after(_LAST_DEBTS):  # what ends us, as a control group, may end their guards as well
                await daemon.do_once(debts)
            living.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await daemon.leave()


@dataclass(frozen=True, slots=True)
class _Executed:
    """A run that another process executes, until it ends or `stop` is requested."""

    run_id: int
    stop: Stop


class _Daemon:
    def __init__(self, store: Store, service: Service, process_id: int, stop: Stop) -> None:
        self._store = store
        self._service = service
        self._process_ids = [process_id]  # the last one is the current one
        self._executed: list[_Executed] = []
        self._stop = stop

    async def take(self, executions: TaskGroup) -> None:
        """Start due runs while there is capacity, and end those that were cancelled."""
        while True:
            await self._store.database.check_still_there()
            with self._while_locked("queue"):
                await self._end_cancelled()
                while await self._has_room():
                    run_id = await self._store.queue.claim(self._process_ids[-1], time.time())
                    if run_id is None:
                        break
                    executed = _Executed(run_id, self._stop.child())
                    self._executed.append(executed)
                    executions.start_soon(self._execute, executed, Claim(run_id, self._process_ids[-1]))
            await anyio.sleep(LOOK)

    async def _has_room(self) -> bool:
        """Whether one more run may start; runs that have settled everything, or cannot begin, do not count."""
        if len(self._executed) < self._service.runs:
            return True
        run_ids = [executed.run_id for executed in self._executed]
        return await self._store.queue.in_the_way(run_ids, time.time()) < self._service.runs

    async def _end_cancelled(self) -> None:
        """Stop cancelled runs. A run that has begun notices this itself, unless the job's own code blocks it."""
        if not self._executed:
            return
        cancelled = await self._store.queue.cancelled([executed.run_id for executed in self._executed])
        for executed in self._executed:
            if executed.run_id in cancelled:
                executed.stop.drain()

    async def _execute(self, executed: _Executed, claim: Claim) -> None:
        """Execute one run. A failure to do so affects only this run."""
        code = None
        try:
            code = await self._service.execute(claim, executed.stop)
        except Exception as trouble:  # noqa: BLE001 - no file descriptors, no interpreter: the other runs go on
            why = f"no process could be started for it: {described(trouble)}"
            self._service.say(f"run {claim.run_id}: {why}")
            with suppress(OrchestratorError):  # a full disk: `take` notices it as well
                await self._store.queue.postpone(claim, why, time.time())
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError, OSError):  # otherwise the reaper does this
                await self._ended(claim, code)
            self._executed.remove(executed)
        if code is not None:
            self._service.say(f"run {claim.run_id} ended with exit code {code}")

    async def _ended(self, claim: Claim, code: int | None) -> None:
        """Release the run, and record why it ended if its process could not."""
        if code == -signal.SIGALRM:
            await self._store.queue.fail(claim, f"its job file {TOO_SLOW}", owed=True)
        await self._store.queue.unclaim(claim)
        await reap(self._store)
        if code is not None and not self._stop.requested:
            await self._store.queue.explain(claim.run_id, _how(code), killed=code < 0)

    async def stay_alive(self) -> None:
        """Keep this process registered as alive. Considered dead, as after a long sleep, it registers again."""
        while True:
            with self._while_locked("lease"):
                if not await self._store.runs.prolong(self._process_ids[-1], LEASE):
                    self._process_ids.append(await enter(self._store, serves=True))
                    self._service.say("silent for too long, so others may have taken over; serving again")
            self._service.alive()
            await anyio.sleep(BEAT)

    @contextmanager
    def _while_locked(self, what: str) -> Iterator[None]:
        """Report that another process locks the ledger, and go on. Runs pause the endpoints that they hold."""
        try:
            yield
        except LedgerLocked as locked:
            self._service.say(f"{what}: {locked}")

    async def pay(self, _now: float) -> None:
        """Pause endpoints that dead processes left awake."""
        await reap(self._store)
        for swept in await sweep(self._store, self._service.revive, self._process_ids[-1]):
            self._service.say(swept.proof or f"endpoint {swept.endpoint} is still owed a pause: {swept.failure}")

    async def do(self, duty: Duty) -> None:
        """Do one duty repeatedly; the same failure is reported only once."""
        reported = ""
        while True:
            reported = await self.do_once(duty, reported)
            await anyio.sleep(duty.every)

    async def do_once(self, duty: Duty, reported: str = "") -> str:
        """Do a duty once; return its failure, or "". A failure that differs from `reported` is reported."""
        trouble = ""
        try:
            await duty.do(time.time())
        except Exception as failure:  # noqa: BLE001 - it is tried again, and the rest does not depend on it
            trouble = f"{duty.name}: {described(failure)}"
        if trouble not in {"", reported}:
            self._service.say(trouble)
        return trouble

    async def leave(self) -> None:
        """Release everything that this process holds."""
        for process_id in self._process_ids:
            await leave(self._store, process_id)


def _how(code: int) -> str:
    """Return how a process ended that left its run unfinished."""
    if code >= 0:
        return f"its process ended with exit code {code} before the run was over; see its log"
    number = -code
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    memory = ", perhaps because memory ran out" if number == signal.SIGKILL else ""
    return f"its process was killed by {name}{memory}; see its log"
