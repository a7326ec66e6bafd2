"""Loops: when requests are sent: on schedule, as answers make room for them, or by more and more clients."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING

import anyio
from anyio import lowlevel

from orchestrator.domain.load import STEPS, arrivals, most_in_flight
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from orchestrator.domain.load import OpenLoop
    from orchestrator.engine.bench.sender import Sender
    from orchestrator.engine.stop import Stop

_EARLY = 0.0005  # seconds: timers of the event loop have milliseconds, so half of one is as near as they come
_SEED = 20  # the arrivals of two load tests at the same rate are the same


async def open_loop(sender: Sender, loop: OpenLoop, seconds: float, room: int | None, grace: float, stop: Stop) -> None:
    """Send requests on schedule, whatever comes back, as long as there is a place in flight.

    An arrival without a place waits for one; its latency counts from when it was planned. What is in flight at the end
    has `grace` seconds.
    """
    begun, most = time.monotonic(), most_in_flight(loop.rate, room)
    tally, course = sender.tally, sender.course
    with anyio.CancelScope() as scope:
        async with task_group() as requests:
            tasks = _Tasks(sender, requests)
            with stop.while_running():
                now = begun
                for after in arrivals(loop, seconds, Random(_SEED)):
                    planned = begun + after
                    while planned > now + _EARLY:  # else it is due: what is due at once is sent without a look between
                        await anyio.sleep(max(0.0, planned - time.monotonic()))
                        now = time.monotonic()
                    tally.planned += 1
                    course.at(planned).planned += 1
                    if tasks.busy >= most and not await tasks.have_place(most, begun + seconds):
                        tally.leave_unsent(planned, time.monotonic())
                        continue
                    tasks.send(planned)
                await anyio.sleep(max(0.0, begun + seconds - time.monotonic()))
            tally.close(time.monotonic(), sender.in_flight)
            tasks.end()
            scope.deadline = anyio.current_time() + grace


class _Tasks:
    """Tasks that send one request after another, so that an arrival needs a new one only if all are busy."""

    def __init__(self, sender: Sender, group: TaskGroup) -> None:
        self._sender = sender
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._idle: list[asyncio.Future[float | None]] = []
        self._ended = False
        self._waiting = 0  # arrivals whose task has not yet run

    @property
    def busy(self) -> int:
        """The number of requests in flight, or about to be."""
        return self._sender.in_flight + self._waiting

    async def have_place(self, most: int, until: float) -> bool:
        """Wait until fewer than `most` are busy; return whether that was before the end."""
        self._sender.tally.held_back += 1
        while self.busy >= most and (left := until - time.monotonic()) > 0:
            with anyio.move_on_after(left):
                await self._sender.freed()
        return self.busy < most and time.monotonic() < until

    def send(self, planned: float) -> None:
        """Send a request as soon as the event loop is free."""
        self._waiting += 1
        if self._idle:
            self._idle.pop().set_result(planned)
        else:
            self._group.start_soon(self._run, planned)

    def end(self) -> None:
        """End every task once it has its answer."""
        self._ended = True
        for idle in self._idle:
            idle.set_result(None)

    async def _run(self, planned: float | None) -> None:
        while planned is not None:
            self._waiting -= 1
            await self._sender.send(planned)
            if self._ended:
                return
            self._idle.append(idle := self._loop.create_future())
            planned = await idle


class ClosedLoops:
    """A number of clients, each of which sends its next request when its last one has been answered."""

    def __init__(self, sender: Sender, stop: Stop) -> None:
        self._sender = sender
        self._stop = stop
        self._wanted = self._there = 0

    async def run(self, grace: float, lead: Callable[[ClosedLoops], Awaitable[None]]) -> None:
        """Run the clients as long as `lead` does, which says how many; what is then in flight has `grace` seconds."""
        with anyio.CancelScope() as scope:
            async with task_group() as self._clients:
                with self._stop.while_running():
                    await lead(self)
                self._wanted = 0
                self._sender.tally.close(time.monotonic(), self._sender.in_flight)
                scope.deadline = anyio.current_time() + grace

    def have(self, concurrency: int) -> None:
        """From now on, have so many clients. Surplus ones end with their answer."""
        self._wanted = concurrency
        while self._there < concurrency:
            self._there += 1
            self._clients.start_soon(self._client)

    async def _client(self) -> None:
        while self._there <= self._wanted:
            self._sender.tally.planned += 1
            self._sender.course.at(time.monotonic()).planned += 1
            if (wait := await self._sender.send()) > 0:
                with self._stop.while_running():
                    await anyio.sleep(wait)
            else:
                await lowlevel.checkpoint()  # a request that fails at once leaves the event loop to others
        self._there -= 1


def step_seconds(seconds: float) -> float:
    """Return how long each step of a sweep may take."""
    return seconds / STEPS


async def until_given_up(sender: Sender, stop: Stop) -> None:
    """Ask for a stop once the sender has given up."""
    await sender.gave_up.wait()
    stop.drain(0.0)
