"""Guards know every debt, whichever run incurred it, and are replaced while the endpoint may cost something."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import RunFailed
from orchestrator.domain.policy import Policy
from orchestrator.domain.terms import Pause, Terms
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.progress import Presence, Progress
from tests.engine.scripted import Scripted, tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.engine.awake.tenant import Tenant
    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)


@dataclass
class Guard:
    """A guard that dies so many times and records what it was told."""

    deaths: int = 0
    unfit: int = 0  # how often a replacement cannot be started
    told: list[Mapping[str, object]] = field(default_factory=list)
    renewed: anyio.Event = field(default_factory=anyio.Event)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Guard]:
        yield self

    async def owe(self, debt: Mapping[str, object]) -> None:
        self.told.append(debt)

    async def renew(self) -> bool:
        if self.unfit:
            self.unfit -= 1
            raise RunFailed("the guard process did not start")
        if not self.deaths:
            return False
        self.deaths -= 1
        self.renewed.set()
        return True


async def guarded_by(guard: Guard, store: Store) -> Tenant:
    return replace(await tenant(store), guard=guard.open, events=Progress(present=[Presence("scripted")]))


def troubles_of(user: Tenant) -> list[str]:
    assert isinstance(user.events, Progress)
    (presence,) = user.events.present
    return presence.troubles


async def test_the_guard_of_a_run_that_joins_another_knows_its_debt(store: Store) -> None:
    endpoint, first, second = Scripted(terms=TERMS), Guard(), Guard()
    async with awake(endpoint, await guarded_by(second, store)) as joined:
        user = await guarded_by(first, store)
        async with awake(endpoint, user) as resumer, resumer.connect(Policy()), joined.connect(Policy()):
            assert endpoint.calls == ["resume"]
        assert [debt["endpoint"] for debt in second.told] == ["scripted"] * len(second.told) != []
        assert second.told[0] == first.told[0]
        assert endpoint.calls == ["resume"]  # it is left to the remaining holder
    assert endpoint.calls == ["resume", "pause"]


async def test_the_guard_learns_of_a_debt_that_another_run_incurs_later(store: Store) -> None:
    endpoint, guard = Scripted(terms=TERMS, state=EndpointState.AWAKE), Guard()
    always = Scripted(terms=replace(TERMS, pause=Pause.ALWAYS), state=EndpointState.AWAKE)
    async with awake(endpoint, await guarded_by(guard, store)) as lent, lent.connect(Policy()):
        await anyio.lowlevel.checkpoint()
        assert guard.told == []  # it was awake, and stays awake
        async with awake(always, await guarded_by(Guard(), store)) as other, other.connect(Policy()):
            with anyio.fail_after(120):
                while not guard.told:
                    await anyio.sleep(0.01)


async def test_the_guard_learns_of_an_awake_endpoint_that_is_to_be_paused(store: Store) -> None:
    guard = Guard()
    terms = replace(TERMS, pause=Pause.SCALE_TO_ZERO)
    endpoint = Scripted(terms=terms, state=EndpointState.AWAKE)
    async with awake(endpoint, await guarded_by(guard, store)) as lent, lent.connect(Policy()):
        debt = guard.told[0]
        assert (debt["pause_with"], debt["to_zero"]) == ({"kind": "scripted"}, True)


async def test_a_guard_that_dies_during_the_final_pause_is_replaced(store: Store) -> None:
    guard = Guard()
    endpoint = Scripted(terms=TERMS, pauses=False)
    async with anyio.create_task_group() as group:

        async def pausing() -> None:
            with anyio.fail_after(120):
                while "pause" not in endpoint.calls:
                    await anyio.sleep(0.01)
                guard.deaths = 1
                await guard.renewed.wait()
            endpoint.pauses, endpoint.state = True, EndpointState.PAUSED

        group.start_soon(pausing)
        user = await guarded_by(guard, store)
        async with awake(endpoint, user) as lent, lent.connect(Policy()):
            assert not guard.renewed.is_set()
    assert troubles_of(user) == ["the guard of scripted was killed; another one watches"]
    assert await store.windows.debts() == []


async def test_a_guard_that_cannot_be_replaced_at_once_does_not_end_the_run(store: Store) -> None:
    guard = Guard(deaths=1, unfit=3)
    user = await guarded_by(guard, store)
    async with awake(Scripted(terms=TERMS), user) as lent, lent.connect(Policy()):
        with anyio.fail_after(120):
            await guard.renewed.wait()
    assert troubles_of(user)[0] == (
        "the guard of scripted was killed, and another one cannot be started yet: the guard process did not start"
    )
    assert len(troubles_of(user)) == 2


async def test_an_endpoint_paused_although_it_was_to_stay_awake_is_not_reported_as_awake(store: Store) -> None:
    endpoint = Scripted(terms=replace(TERMS, pause=Pause.NEVER))
    async with awake(endpoint, await guarded_by(Guard(), store)) as lent, lent.connect(Policy()):
        endpoint.state = EndpointState.PAUSED  # by another process
    assert lent.proof == "endpoint scripted is asleep, although job job keeps it: paused"
