"""Any interleaving of entering, resuming, leaving, pausing, dying and sweeping keeps the promises of awake windows."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Spent, Terms
from orchestrator.store import Store
from orchestrator.store.windows import Leaving
from tests.store.places import IN_MEMORY

TERMS = Terms("acme/e", {"kind": "test"})
PROCESSES = st.integers(0, 2)


class WindowMachine(RuleBasedStateMachine):
    """`users` work inside the window, `payers` are pausing; both by process slot, with the number of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.processes: list[int] = []
        self.users: dict[int, int] = {}
        self.payers: dict[int, int] = {}
        self.awake = self.ours = False

    @initialize()
    def open(self) -> None:
        self.loop.run(self._open())

    async def _open(self) -> None:
        self.store = await self.stack.enter_async_context(Store.open(str(Path(self.folder.name) / "ledger.db")))
        self.processes = [await self._register() for _ in range(3)]

    async def _register(self) -> int:
        return await self.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)

    def free(self, who: int) -> bool:
        return who not in self.users and who not in self.payers

    @rule(who=PROCESSES)
    def enter(self, who: int) -> None:
        if self.free(who):
            window = self.loop.run(self.store.windows.enter(TERMS, self.processes[who], 1, "job"))
            assert (window is None) == bool(self.payers), "nobody enters while somebody pauses, else everybody may"
            if window is not None:
                self.users[who] = window

    @rule(who=PROCESSES)
    def resume(self, who: int) -> None:
        if who in self.users and not self.awake:
            self.loop.run(self.store.windows.owe(self.users[who], TERMS, EndpointState.PAUSED))
            self.awake = self.ours = True

    @rule()
    def somebody_else_resumes(self) -> None:
        self.awake = True

    @rule(who=PROCESSES)
    def leave(self, who: int) -> None:
        if who in self.users:
            window = self.users.pop(who)
            leaving, _ = self.loop.run(self.store.windows.leave(window, self.processes[who], Spent()))
            assert (leaving is Leaving.STILL_HELD) == bool(self.users)
            if leaving is Leaving.OWED:
                self.payers[who] = window

    @rule(who=PROCESSES, works=st.booleans())
    def pause(self, who: int, works: bool) -> None:
        if who not in self.payers:
            return
        assert not self.users, "nobody is paused away"
        window, process_id = self.payers.pop(who), self.processes[who]
        if works:
            self.awake = self.ours = False
            close = self.store.windows.close(
                window, process_id, EndpointState.PAUSED, "paused", by="run", spent=Spent()
            )
            self.loop.run(close)
        else:
            self.loop.run(self.store.windows.drop(window, process_id, Spent()))

    @rule(who=PROCESSES)
    def die(self, who: int) -> None:
        self.users.pop(who, None)
        self.payers.pop(who, None)
        self.loop.run(self._bury(self.processes[who]))
        self.processes[who] = self.loop.run(self._register())

    async def _bury(self, process_id: int) -> None:
        (dead,) = [known for known in await self.store.runs.living() if known.id == process_id]
        assert await self.store.runs.bury(dead)

    @rule(who=PROCESSES)
    def sweep(self, who: int) -> None:
        if not self.free(who):
            return
        for debt in self.loop.run(self.store.windows.debts()):
            assert not self.users
            assert not self.payers
            assert self.loop.run(self.store.windows.claim(debt.window_id, self.processes[who]))
            self.payers[who] = debt.window_id

    @invariant()
    def what_we_woke_is_used_or_being_paused_or_a_debt(self) -> None:
        if not self.processes:
            return
        debts = self.loop.run(self.store.windows.debts())
        if self.users or self.payers:
            assert debts == []
        elif self.ours:
            assert [debt.owed for debt in debts] == [True]

    def teardown(self) -> None:
        self.loop.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()


TestWindows = WindowMachine.TestCase
TestWindows.settings = settings(max_examples=60, stateful_step_count=30)
