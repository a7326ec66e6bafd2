from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import LastingHold, Pause, Terms
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.awake.sweep import LOOK, owed, sweep
from tests.engine.scripted import Scripted
from tests.past import clock_at

if TYPE_CHECKING:
    from orchestrator.store import Store


async def left_by_a_dead_process(store: Store, name: str, *, resumed: bool = True) -> None:
    dead = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=-1.0)
    terms = Terms(name, {"name": name}, pause_deadline=0.05)
    window = await store.windows.enter(terms, dead)
    assert window is not None
    if resumed:
        await store.windows.owe(window, terms, EndpointState.PAUSED)


async def test_a_sweep_pays_every_debt_except_those_to_spare(store: Store) -> None:
    endpoints = {
        name: Scripted(
            name=name, state=EndpointState.AWAKE, pauses=name != "stuck", terms=Terms(name, pause_deadline=0.05)
        )
        for name in ("stuck", "spared", "unowed", "paid")
    }
    for name in endpoints:
        await left_by_a_dead_process(store, name, resumed=name != "unowed")
    assert [debt.endpoint for debt in await owed(store)] == ["stuck", "spared", "paid"]
    async with registered(store) as me:
        swept = await sweep(store, lambda fields: endpoints[str(fields["name"])], me, spare={"spared"})
        assert [(one.endpoint, one.proof is None, one.failure is None) for one in swept] == [
            ("stuck", True, False),
            ("paid", False, True),
        ]
        assert [debt.endpoint for debt in await store.windows.debts()] == ["stuck", "spared"]
    assert [endpoints[name].calls for name in ("spared", "unowed", "paid")] == [[], [], ["pause"]]
    assert {use.endpoint: use.closed_by for use in await store.receipts.since()} == {
        "stuck": None,
        "spared": None,
        "unowed": "sweep",
        "paid": "sweep",
    }


async def test_an_endpoint_held_by_a_live_process_is_not_a_debt(store: Store) -> None:
    async with registered(store) as me:
        window = await store.windows.enter(Terms("e"), me)
        assert window is not None
        await store.windows.owe(window, Terms("e"), EndpointState.PAUSED)
        assert await owed(store) == []
        assert await sweep(store, lambda fields: Scripted(), me) == []
    assert [debt.endpoint for debt in await owed(store)] == ["e"]


async def test_an_endpoint_that_a_person_holds_is_looked_at_and_let_go_only_once_it_sleeps(store: Store) -> None:
    endpoint, hold = Scripted(name="e", state=EndpointState.AWAKE), LastingHold("ada")
    with clock_at(time.time()) as clock:
        async with registered(store) as waking:
            window = await store.windows.enter(Terms("e", pause=Pause.NEVER), waking, None, "(resume)", hold)
            assert window is not None
            await store.windows.owe(window, Terms("e", pause=Pause.NEVER), EndpointState.PAUSED)
        for state in (EndpointState.AWAKE, EndpointState.PAUSED):
            clock.now += 2 * LOOK
            endpoint.state = state
            async with registered(store) as me:
                assert await sweep(store, lambda _fields: endpoint, me) == []
            assert await store.lasting_holds.of("e") == (hold if state is EndpointState.AWAKE else None)
    assert "pause" not in endpoint.calls
