"""Whatever clocks, runs and users do: one decision for each slot, no gap between them, and overlap as declared."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.domain.schedule import Cron, Overlap
from orchestrator.domain.timetable import Declared
from orchestrator.engine.daemon.schedules import fire_due
from orchestrator.store import Store
from tests.store.places import IN_MEMORY

EVERY = 600.0
START = datetime(2026, 3, 28, 20, 0, tzinfo=UTC).timestamp()  # the night when clocks go forward
_ACTIVE = "state NOT IN ('finished', 'cancelled', 'superseded') AND (due_at IS NOT NULL OR holder IS NOT NULL)"


class ScheduleMachine(RuleBasedStateMachine):
    """`now` is the clock of the firing process; the model is the set of slots that must be decided by now."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.now = START
        self.decided_until = START

    @initialize(
        overlap=st.sampled_from(["skip", "buffer_one", "allow", "cancel_other"]),
        catch_up=st.sampled_from(["latest", "all", "none"]),
    )
    def open(self, overlap: Overlap, catch_up: Any) -> None:
        self.overlap = overlap
        cron = Cron("*/10 * * * *", "Europe/Paris", overlap, catch_up)
        self.declared = Declared("job", {"jobfile": "/jobs/job.py"}, ["a"], cron)
        self.loop.run(self._open())

    async def _open(self) -> None:
        self.store = await self.stack.enter_async_context(Store.open(str(Path(self.folder.name) / "ledger.db")))
        self.me = await self.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        await self.store.schedules.put(self.declared, "file", self.now)

    @rule(seconds=st.one_of(st.floats(0, 1500), st.floats(-20_000, 20_000)))
    def clock(self, seconds: float) -> None:
        """Let time pass, or set the clock."""
        self.now += seconds

    @rule(looks=st.integers(1, 3))
    def fire(self, looks: int) -> None:
        async def at_once() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(looks):
                    group.create_task(fire_due(self.store, self.now))

        self.loop.run(at_once())
        self.decided_until = max(self.decided_until, self.now // EVERY * EVERY)

    @rule()
    def say_it_again(self) -> None:
        self.loop.run(self.store.schedules.put(self.declared, "file", self.now))

    @rule()
    def execute(self) -> None:
        self._change(
            "UPDATE run SET holder = :me "
            "WHERE id = (SELECT min(id) FROM run WHERE due_at IS NOT NULL AND holder IS NULL) "
            "AND NOT EXISTS (SELECT 1 FROM run WHERE holder IS NOT NULL)"
        )

    @rule()
    def requeue(self) -> None:
        self._change("UPDATE run SET holder = NULL WHERE due_at IS NOT NULL")

    @rule()
    def finish(self) -> None:
        self._change(
            "UPDATE run SET state = 'finished', finished_at = 1, due_at = NULL, holder = NULL "
            "WHERE holder IS NOT NULL AND state <> 'cancelled'"
        )
        self._change("UPDATE run SET holder = NULL WHERE state = 'cancelled'")

    def _change(self, statement: str) -> None:
        async def change() -> None:
            async with self.store.database.write() as connection:
                values = {"me": self.me} if ":me" in statement else {}
                await connection.execute(statement, values)

        self.loop.run(change())

    def _rows(self, query: str) -> list[Any]:
        async def look() -> list[Any]:
            async with self.store.database.read() as connection:
                return list((await connection.execute(query)).all())

        return self.loop.run(look())

    @invariant()
    def every_slot_has_one_decision(self) -> None:
        slots = [row.slot for row in self._rows("SELECT slot FROM slot ORDER BY slot")]
        due = round((self.decided_until - START) / EVERY)
        assert slots == [START + EVERY * number for number in range(1, due + 1)]

    @invariant()
    def each_fired_slot_has_its_run_and_each_miss_is_counted(self) -> None:
        fired = [row.run_id for row in self._rows("SELECT run_id FROM slot WHERE outcome = 'fired' ORDER BY slot")]
        assert fired == [row.id for row in self._rows("SELECT id FROM run ORDER BY id")]
        ((missed, counted),) = self._rows(
            "SELECT (SELECT count(*) FROM slot WHERE outcome = 'missed'), (SELECT sum(missed) FROM schedule)"
        )
        assert missed == counted

    @invariant()
    def no_more_runs_are_under_way_than_the_policy_allows(self) -> None:
        executed = len(self._rows(f"SELECT 1 FROM run WHERE {_ACTIVE} AND holder IS NOT NULL"))
        waiting = len(self._rows(f"SELECT 1 FROM run WHERE {_ACTIVE} AND holder IS NULL"))
        match self.overlap:
            case "skip" | "cancel_other":
                assert executed + waiting <= 1
            case "buffer_one":
                assert executed + waiting <= 2
            case "allow":
                assert not self._rows("SELECT 1 FROM slot WHERE outcome = 'skipped'")

    def teardown(self) -> None:
        self.loop.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()


TestSchedules = ScheduleMachine.TestCase
TestSchedules.settings = settings(max_examples=40, stateful_step_count=20)
