"""Loops: when requests are sent: on schedule, as answers make room for them, or by more and more clients."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.load import STEPS, arrivals, most_in_flight
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.domain.load import OpenLoop
    from orchestrator.engine.bench.sender import Sender
    from orchestrator.engine.stop import Stop

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
            with stop.while_running():
                for after in arrivals(loop, seconds, Random(_SEED)):
                    planned = begun + after
                    await anyio.sleep(max(0.0, planned - time.monotonic()))
                    tally.planned += 1
                    course.at(planned).planned += 1
                    if sender.in_flight >= most and not await _has_place(sender, most, begun + seconds):
                        tally.leave_unsent(planned, time.monotonic())
                        continue
                    requests.start_soon(sender.send, planned)
                await anyio.sleep(max(0.0, begun + seconds - time.monotonic()))
            tally.close(time.monotonic(), sender.in_flight)
            scope.deadline = anyio.current_time() + grace


async def _has_place(sender: Sender, most: int, until: float) -> bool:
    """Wait for a place in flight; return whether there was one before the end."""
    sender.tally.held_back += 1
    while sender.in_flight >= most and (left := until - time.monotonic()) > 0:
        with anyio.move_on_after(left):
            await sender.freed()
    return sender.in_flight < most and time.monotonic() < until


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
            wait = await self._sender.send()
            with self._stop.while_running():
                await anyio.sleep(wait)
        self._there -= 1


def step_seconds(seconds: float) -> float:
    """Return how long each step of a sweep may take."""
    return seconds / STEPS


async def until_given_up(sender: Sender, stop: Stop) -> None:
    """Ask for a stop once the sender has given up."""
    await sender.gave_up.wait()
    stop.drain(0.0)
