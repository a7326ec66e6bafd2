"""Members: the servers of one endpoint. They join and leave while it is asked; each has its own session.

A member that does not come up, or is lost again and again, rests and is tried again while others work
(`MemberRests`), each time after twice as long, until it has settled something. One that has ended, because others
had the rest in their hands, is used again if they all fail.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import (
    EndpointFailed,
    Fenced,
    NotAwake,
    OrchestratorError,
    PauseUnconfirmed,
    RunFailed,
    RunStopped,
)
from orchestrator.domain.events import EndpointDropped, MemberRests, SessionBegan, SessionEnded
from orchestrator.domain.waiting import Waiting
from orchestrator.engine.run.session import connected, is_unneeded, within_budget
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup

    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.engine.awake.awake import Awake
    from orchestrator.ports import Member

    Ask = Callable[[Awake], Awaitable[Waiting | None]]
    Ending = Waiting | OrchestratorError | None

START_AGAIN = 30.0  # seconds before a member that did not come up is started again, while others work; then doubled
_LONGEST_REST = 960.0  # seconds


def rest_after(fruitless: int) -> float:
    """Return the seconds before a member is started again that has failed so many times with nothing settled."""
    return min(START_AGAIN * 2.0 ** max(0, fruitless - 1), _LONGEST_REST)


async def ask_members(
    endpoint: Awake, queue: WorkQueue, in_flight: InFlight, effort: Effort, ask: Ask, out: dict[str, OrchestratorError]
) -> Waiting | None:
    """Ask every member of an endpoint until the work queue has nothing for it. A single server is its own member.

    Members start at the same time, and each works from the moment it is ready. One that fails is left out, or started
    again after a while, as long as others work; the endpoint fails if all of its members have failed.

    Args:
        endpoint: the open endpoint.
        queue: where the items come from.
        in_flight: all requests of the run.
        effort: how the endpoint is used.
        ask: runs a session with one member.
        out: members that the run no longer uses, by name, and why. This function adds to them.

    Returns:
        What is waited for if the endpoint should sleep until then.

    Raises:
        OrchestratorError: why the last member failed, once all have; `BudgetSpent`.

    """
    async with within_budget(endpoint, queue, effort), AsyncExitStack() as stack:
        changes = endpoint.members()
        if changes is None:
            return await ask(endpoint)
        await stack.enter_async_context(aclosing(changes))
        # the debt is the endpoint's, and recorded before any member is started
        if endpoint.terms is not None and await connected(endpoint, stack, queue, in_flight, effort) is None:
            return None
        return await _Members(endpoint, queue, in_flight, effort, ask, out).run(changes)


class _Members:
    def __init__(
        self,
        endpoint: Awake,
        queue: WorkQueue,
        in_flight: InFlight,
        effort: Effort,
        ask: Ask,
        out: dict[str, OrchestratorError],
    ) -> None:
        self._endpoint = endpoint
        self._queue = queue
        self._events = queue.work.events
        self._ask = ask
        self._needs_nobody = partial(is_unneeded, queue, in_flight, effort)
        self._stop = effort.stop
        self._out = out
        self._scopes: dict[Member, anyio.CancelScope] = {}  # of all present members
        self._sessions = 0  # members whose session has not ended
        self._active = 0  # of these, those that do not rest
        self._endings: list[Ending] = []
        self._idle: list[Member] = []  # ended because other members had the remaining items in flight

    async def run(self, changes: AsyncGenerator[Sequence[Member]]) -> Waiting | None:
        async with task_group() as sessions, task_group() as following:
            following.start_soon(self._stop_following, following.cancel_scope)
            async for present in changes:
                self._follow(present, sessions)
            following.cancel_scope.cancel()
        while idle := self._needed_again():
            async with task_group() as sessions:
                self._follow(idle, sessions)
        return self._outcome()

    def _follow(self, present: Sequence[Member], sessions: TaskGroup) -> None:
        """Begin a session with every new member, and end those of members that have left."""
        for member in set(self._scopes).difference(present):
            self._scopes.pop(member).cancel()
        self._idle = [member for member in self._idle if member in present]
        for member in present:
            if member not in self._scopes:
                scope = self._scopes[member] = anyio.CancelScope()
                self._sessions += 1
                sessions.start_soon(self._serve, member, scope)

    async def _stop_following(self, scope: anyio.CancelScope) -> None:
        """Wait for no more members if nothing is left for them, all have ended, or there was none for too long."""
        there_at, timeout = anyio.current_time(), self._endpoint.startup_timeout
        while not self._needs_nobody() and (self._sessions or not self._endings):
            if self._sessions:
                there_at = anyio.current_time()
            elif anyio.current_time() >= there_at + timeout:
                why = f"endpoint {self._endpoint.name} had no member for {timeout:g} s"
                self._endings.append(NotAwake(f"{why}; run the same command again to continue"))
                break
            with anyio.move_on_after(None if self._sessions else there_at + timeout - anyio.current_time()):
                await self._changed()
        scope.cancel()

    async def _serve(self, member: Member, scope: anyio.CancelScope) -> None:
        """Ask one member until it has ended, or has left."""
        self._events.emit(SessionBegan(member.name, of=self._endpoint.name))
        presence, fruitless = self._queue.work.progress.presence_of(member.name), 0
        try:
            with scope:
                while True:
                    settled = presence.settled
                    ending = self._out.get(member.name) or await self._session(member)
                    fruitless = 0 if presence.settled > settled else fruitless + 1
                    if not await self._rested(ending, member, rest_after(fruitless)):
                        self._endings.append(ending)
                        self._idle += [member] if ending is None else []
                        break
        finally:
            self._sessions -= 1
            self._events.emit(SessionEnded(member.name, None))
            self._queue.notify()

    async def _session(self, member: Member) -> Ending:
        """Start the member, ask it, and end it. Its failure does not affect the others."""
        self._active += 1
        try:
            async with self._endpoint.member(member) as server:
                return await self._ask(server)
        except (Fenced, PauseUnconfirmed):
            raise  # worse than the loss of a member
        except (RunFailed, RunStopped) as failure:
            return failure
        finally:
            self._active -= 1
            self._queue.notify()

    async def _rested(self, ending: Ending, member: Member, rest: float) -> bool:
        """Return when it is time to use the member again; False if it has ended, or no other member works any more.

        `rest`: seconds before a member that has failed is started again.
        """
        match ending:
            case Waiting(until=until):
                seconds = until - time.time()
            case EndpointFailed() | NotAwake():
                seconds = rest
            case OrchestratorError():
                if member.name not in self._out:
                    self._out[member.name] = ending
                    self._events.emit(EndpointDropped(member.name, str(ending)))
                return False
            case None:
                return False
        again_at = time.monotonic() + seconds
        if self._active:
            self._events.emit(MemberRests(member.name, str(ending), seconds))
        while (left := again_at - time.monotonic()) > 0:
            if not self._active or self._needs_nobody():
                return False
            with anyio.move_on_after(left):
                await self._changed()
        return True

    async def _changed(self) -> None:
        """Return when something may have changed for waiting members."""
        with self._stop.while_running():
            await self._queue.changed()

    def _needed_again(self) -> list[Member]:
        """Return idle members if those that had the remaining items in flight have failed since."""
        idle, self._idle = self._idle, []
        failures = [ending for ending in self._endings if isinstance(ending, OrchestratorError)]
        waits = any(isinstance(ending, Waiting) for ending in self._endings)
        if not failures or waits or self._needs_nobody():
            return []
        self._endings = [*failures]
        self._scopes.clear()
        return idle

    def _outcome(self) -> Waiting | None:
        waits = [ending for ending in self._endings if isinstance(ending, Waiting)]
        failures = [ending for ending in self._endings if isinstance(ending, OrchestratorError)]
        if waits:
            return min(waits, key=lambda waiting: waiting.until)
        if failures and len(failures) == len(self._endings):
            raise failures[-1]
        return None
