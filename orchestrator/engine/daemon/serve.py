"""serve: the daemon. Takes what is due out of the queue, has it executed, fires schedules, pays debts."""

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

LOOK = 0.5  # seconds between two looks at the queue
DEBTS = 30.0  # seconds between two looks at what dead processes owe
_LAST_DEBTS = 30.0  # seconds that paying those of killed children may take at the end

# has a claimed run executed by another process, which is told to stop when this one is; gives its exit code
Execute = Callable[[Claim, "Stop"], Awaitable[int]]


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


async def serve(store: Store, service: Service, stop: Stop) -> None:
    """Serve until `stop` is requested; then nothing more is taken, and this returns when all executions have ended.

    The ledger's trouble ends it: `LedgerError`, when the executions that it has begun are over.
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
            with anyio.move_on_after(_LAST_DEBTS):  # what ends with us, such as a control group, may end their guards
                await daemon.do_once(debts)
            living.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await daemon.leave()


@dataclass(frozen=True, slots=True)
class _Executed:
    """A run that another process executes, until it is over or `stop` is requested."""

    run_id: int
    stop: Stop


class _Daemon:
    def __init__(self, store: Store, service: Service, process_id: int, stop: Stop) -> None:
        self._store = store
        self._service = service
        self._process_ids = [process_id]  # the last one is what it is known by now
        self._executed: list[_Executed] = []
        self._stop = stop

    async def take(self, executions: TaskGroup) -> None:
        """Have executed what is due, as long as there is room; end what was cancelled."""
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
        """Runs that have settled everything, or do not get to begin, take no room."""
        if len(self._executed) < self._service.runs:
            return True
        run_ids = [executed.run_id for executed in self._executed]
        return await self._store.queue.in_the_way(run_ids, time.time()) < self._service.runs

    async def _end_cancelled(self) -> None:
        """A run that has begun sees by itself that it was cancelled, unless the job's own code holds it up."""
        if not self._executed:
            return
        cancelled = await self._store.queue.cancelled([executed.run_id for executed in self._executed])
        for executed in self._executed:
            if executed.run_id in cancelled:
                executed.stop.drain()

    async def _execute(self, executed: _Executed, claim: Claim) -> None:
        """Have one run executed. Whatever goes wrong with that is this run's trouble."""
        code = None
        try:
            code = await self._service.execute(claim, executed.stop)
        except Exception as trouble:  # noqa: BLE001 - no file descriptors, no interpreter: the others go on
            why = f"no process could be started for it: {described(trouble)}"
            self._service.say(f"run {claim.run_id}: {why}")
            with suppress(OrchestratorError):  # a full disk: `take` finds it, too
                await self._store.queue.postpone(claim, why, time.time())
        finally:
            with anyio.CancelScope(shield=True), suppress(OrchestratorError, OSError):  # the reaper puts it right
                await self._ended(claim, code)
            self._executed.remove(executed)
        if code is not None:
            self._service.say(f"run {claim.run_id} ended with exit code {code}")

    async def _ended(self, claim: Claim, code: int | None) -> None:
        """See that nobody has the run any more, and that it says why where its process could not."""
        if code == -signal.SIGALRM:
            await self._store.queue.fail(claim, f"its job file {TOO_SLOW}", owed=True)
        await self._store.queue.unclaim(claim)
        await reap(self._store)
        if code is not None and not self._stop.requested:
            await self._store.queue.explain(claim.run_id, _how(code), killed=code < 0)

    async def stay_alive(self) -> None:
        """Stay known to be alive. Taken for dead after a long sleep, it comes back under another number."""
        while True:
            with self._while_locked("lease"):
                if not await self._store.runs.prolong(self._process_ids[-1], LEASE):
                    self._process_ids.append(await enter(self._store, serves=True))
                    self._service.say("silent for too long, so others may have taken over; serving again")
            self._service.alive()
            await anyio.sleep(BEAT)

    @contextmanager
    def _while_locked(self, what: str) -> Iterator[None]:
        """Another process keeps the ledger locked: that is said, and waited for. The runs pause what they hold."""
        try:
            yield
        except LedgerLocked as locked:
            self._service.say(f"{what}: {locked}")

    async def pay(self, _now: float) -> None:
        """Pause what dead processes left awake."""
        await reap(self._store)
        for swept in await sweep(self._store, self._service.revive, self._process_ids[-1]):
            self._service.say(swept.proof or f"endpoint {swept.endpoint} is still owed a pause: {swept.failure}")

    async def do(self, duty: Duty) -> None:
        """Do one duty again and again; the same trouble is said once."""
        said = ""
        while True:
            said = await self.do_once(duty, said)
            await anyio.sleep(duty.every)

    async def do_once(self, duty: Duty, said: str = "") -> str:
        """Do a duty; gives what went wrong, which is said unless that was `said` before."""
        trouble = ""
        try:
            await duty.do(time.time())
        except Exception as failure:  # noqa: BLE001 - it is tried again, and the rest does not depend on it
            trouble = f"{duty.name}: {described(failure)}"
        if trouble not in {"", said}:
            self._service.say(trouble)
        return trouble

    async def leave(self) -> None:
        """Hold nothing any more."""
        for process_id in self._process_ids:
            await leave(self._store, process_id)


def _how(code: int) -> str:
    """How a process ended that left its run unfinished."""
    if code >= 0:
        return f"its process ended with exit code {code}, and the run was not over; see its log"
    number = -code
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    memory = ", perhaps for want of memory" if number == signal.SIGKILL else ""
    return f"its process was killed by {name}{memory}; see its log"
