"""MemberGroup: the control plane of an endpoint with a fixed set of members (workers on devices, server replicas)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost
from orchestrator.ports import Member

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.ports import DataPlane

M = TypeVar("M", bound=Member)
_BEST_FIRST = (
    EndpointState.AWAKE,
    EndpointState.STARTING,
    EndpointState.SCALED_TO_ZERO,
    EndpointState.PAUSED,
    EndpointState.FAILED,
)


class MemberGroup(Generic[M]):
    """All members as one: `state` returns the best member's state, and `connect` opens a member that answers."""

    terms: Terms | None = None  # they end with this process, however it ends

    def __init__(self, members: Sequence[M]) -> None:
        self.present = tuple(members)
        self.look_every = min(member.look_every for member in self.present)
        self._states = dict.fromkeys(self.present, EndpointState.PAUSED)
        self._answering: list[M] = []  # when we last asked

    async def members(self) -> AsyncGenerator[Sequence[M]]:
        """Yield all members, once."""
        yield self.present

    @property
    def status_text(self) -> str:
        """How many members are awake, and the status text of the one in the worst state."""
        awake = sum(state is EndpointState.AWAKE for state in self._states.values())
        worst = max(self.present, key=lambda member: _BEST_FIRST.index(self._states[member]))
        rest = f"; {worst.name}: {worst.status_text}" if awake < len(self.present) else ""
        return f"{awake} of {len(self.present)} members awake{rest}"

    @property
    def installing(self) -> bool:
        """Whether every member is still installing."""
        return all(member.installing for member in self.present)

    async def resume(self) -> None:
        """Start every member that is not running. Raises the first failure once all have been asked."""
        await self._each(lambda member: member.resume())

    async def state(self) -> EndpointState:
        """Look at all members and return the best state."""

        async def look(member: M) -> None:
            self._states[member] = await member.state()

        await self._each(look)
        return min(self._states.values(), key=_BEST_FIRST.index)

    async def price(self) -> float | None:
        """Return dollars per hour for all members together; None if they have no price."""
        prices = [await member.price() for member in self.present]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    async def answers(self) -> bool:
        """Whether any member would answer a request now."""
        answering: list[M] = []

        async def ask(member: M) -> None:
            if await member.answers():
                answering.append(member)

        await self._each(ask)
        self._answering = answering
        return bool(answering)

    async def pause(self, *, to_zero: bool = False) -> None:
        """End all members and confirm that they are gone. Raises the first failure once all have been asked."""
        with anyio.CancelScope(shield=True):
            await self._each(lambda member: member.pause(to_zero=to_zero))

    async def _each(self, act: Callable[[M], Awaitable[None]]) -> None:
        """Do this with all members at once. Raises the first failure once all have been asked."""
        if failures := await self._failures(act):
            raise failures[0]

    async def _failures(self, act: Callable[[M], Awaitable[None]]) -> list[Exception]:
        """Do this with all members at once; a member that fails does not keep the others from it."""
        failures: list[Exception] = []

        async def attempt(member: M) -> None:
            try:
                await act(member)
            except Exception as failure:  # noqa: BLE001 - the caller decides
                failures.append(failure)

        async with anyio.create_task_group() as group:
            for member in self.present:
                group.start_soon(attempt, member)
        return failures

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[DataPlane]:
        """Open the data plane of the first awake member, preferably one that answered when we last asked."""
        awake = [member for member in self.present if self._states[member] is EndpointState.AWAKE]
        answering = [member for member in awake if member in self._answering]
        usable = answering or awake or self._answering  # one may answer before it is seen awake
        if not usable:
            raise EndpointLost("no member is awake")
        async with usable[0].connect(policy) as data:
            yield data
