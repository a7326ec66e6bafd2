"""Any interleaving of lease, settle, release, expire, crash and replay keeps the ledger's invariants."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import Spec
from orchestrator.store import Store
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.ledgers import forgive
from tests.store.counters import check_counters
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from orchestrator.domain.item import Item, Lease

PROCESSES = st.integers(0, 2)
FAILURE = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)


class Hands:
    """What one process holds in memory."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        self.items: list[Item] = []
        self.open: Counter[Lease] = Counter()


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.run_id = self.total = 0
        self.hands: list[Hands] = []
        self.completed: dict[int, str] = {}
        self.discarded: set[int] = set()
        self.failed: set[tuple[int, int]] = set()  # attempts by item and number
        self.tokens: dict[int, int] = {}

    @initialize(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
    def ingest(self, sizes: list[int]) -> None:
        self.loop.run(self._ingest(sizes))

    async def _ingest(self, sizes: list[int]) -> None:
        self.store = await self.stack.enter_async_context(Store.open(str(Path(self.folder.name) / "ledger.db")))
        self.hands = [Hands(await self._register()) for _ in range(3)]
        run = await self.store.runs.take(Spec("job", "f", "s"), self.hands[0].process_id)
        chunks = [[NewItem(f"{number}.{row}", "h", "{}", None) for row in range(n)] for number, n in enumerate(sizes)]
        plan = await self.store.snapshots.ingest(run.id, run.job_id, 0, chunks)
        await self.store.runs.ingested(run.id, total=sum(sizes), plan=plan, input_sha256="s")
        self.run_id, self.total = run.id, sum(sizes)

    async def _register(self) -> int:
        return await self.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)

    @rule(who=PROCESSES, chunks=st.integers(1, 2))
    def lease(self, who: int, chunks: int) -> None:
        hands = self.hands[who]
        for leased in self.loop.run(self.store.items.lease(self.run_id, hands.process_id, chunks)):
            assert leased.lease.token > self.tokens.get(leased.lease.chunk, 0), "tokens only rise"
            self.tokens[leased.lease.chunk] = leased.lease.token
            again = {item.key for item in leased.items}
            hands.items = [item for item in hands.items if item.key not in again] + leased.items
            hands.open[leased.lease] = len(leased.items)

    @rule(who=PROCESSES, data=st.data())
    def settle(self, who: int, data: st.DataObject) -> None:
        hands = self.hands[who]
        batch = data.draw(st.lists(st.sampled_from(hands.items), min_size=1, unique=True)) if hands.items else []
        ways = [data.draw(st.sampled_from(["complete", "retry", "discard"])) for _ in batch]
        settlements = [self._settlement(hands, item, way) for item, way in zip(batch, ways, strict=True)]
        close = []
        for settlement in settlements:
            if not isinstance(settlement.outcome, RetryLater):
                hands.items.remove(settlement.item)
                hands.open[settlement.item.lease] -= 1
                if not hands.open[settlement.item.lease]:
                    close.append(settlement.item.lease)
        for _ in range(data.draw(st.integers(1, 2))):  # a commit with an unknown result may be sent again
            self.loop.run(self.store.items.settle(settlements, close))
        for settlement in settlements:
            if isinstance(settlement.outcome, RetryLater):
                settlement.item.attempt += 1

    def _settlement(self, hands: Hands, item: Item, way: str) -> Settlement:
        current = self.tokens[item.lease.chunk] == item.lease.token and self._leased_by(item.lease) == hands.process_id
        if way != "complete" and current:
            self.failed.add((item.key, item.attempt))
        if way == "complete":
            if item.key not in self.discarded:
                self.completed.setdefault(item.key, f'"by {hands.process_id}"')
            return Settlement(item, Completed(f'"by {hands.process_id}"'), 0.1)
        if way == "retry":
            return Settlement(item, RetryLater(0.0, FAILURE), 0.1)
        if current and item.key not in self.completed:
            self.discarded.add(item.key)
        return Settlement(item, Discarded(FAILURE), 0.1)

    @rule(who=PROCESSES)
    def release(self, who: int) -> None:
        hands = self.hands[who]
        self.loop.run(self.store.items.release(hands.process_id))
        hands.items, hands.open = [], Counter()

    @rule(who=PROCESSES, forgets=st.booleans())
    def die(self, who: int, *, forgets: bool) -> None:
        """Kill it (it forgets), or stop it until its leases expire and it returns as a zombie."""
        hands = self.hands[who]
        self.loop.run(self.store.items.expire(hands.process_id))
        if forgets:
            self.hands[who] = Hands(self.loop.run(self._register()))

    @rule()
    def forgive(self) -> None:
        forgiven = self.loop.run(forgive(self.store, self.run_id))
        assert forgiven == len(self.discarded | self._crashed())
        self.discarded = set()

    def _crashed(self) -> set[int]:
        """Return the items that the ledger itself discarded because processes died with them repeatedly."""
        return {row[0] for row in self._rows("SELECT item_key FROM result WHERE outcome = 'discarded'")}

    def _leased_by(self, lease: Lease) -> int | None:
        rows = self._rows(
            "SELECT holder FROM chunk WHERE id = :id AND token = :token", id=lease.chunk, token=lease.token
        )
        return rows[0][0] if rows else None

    def _rows(self, sql: str, **values: object) -> list[Any]:
        async def read() -> list[Any]:
            async with self.store.database.read() as connection:
                return list((await connection.execute(sql, values)).all())

        return self.loop.run(read())

    @invariant()
    def every_answer_is_there_once_and_the_first_one_counts(self) -> None:
        if self.total:
            rows = self._rows("SELECT item_key, output FROM result WHERE outcome = 'completed'")
            assert dict(map(tuple, rows)) == self.completed

    @invariant()
    def every_failed_attempt_was_made_by_the_holder(self) -> None:
        if self.total:
            rows = self._rows("SELECT item_key, number FROM attempt WHERE kind <> :kind", kind=FailureKind.CRASHED)
            assert set(map(tuple, rows)) == self.failed

    @invariant()
    def every_discard_was_made_by_the_holder(self) -> None:
        if self.total:
            assert self.discarded <= self._crashed()

    @invariant()
    def the_counters_say_what_the_results_say(self) -> None:
        if self.total:
            self.loop.run(check_counters(self.store))

    @invariant()
    def chunks_cover_the_run_without_overlap(self) -> None:
        spans = self._rows("SELECT lo, hi FROM chunk ORDER BY lo")
        assert sum(hi - lo for lo, hi in spans) == self.total
        assert all(left[1] == right[0] for left, right in pairwise(spans))

    def teardown(self) -> None:
        try:
            if self.total:
                self._finish()
        finally:
            self.loop.run(self.stack.aclose())
            self.loop.close()
            self.folder.cleanup()

    def _finish(self) -> None:
        """Whatever happened: one healthy process can settle the rest, each item exactly once."""
        for hands in self.hands:
            self.loop.run(self.store.items.expire(hands.process_id))
        worker = Hands(self.loop.run(self._register()))
        deadline = time.monotonic() + 30
        while leased := self.loop.run(self.store.items.lease(self.run_id, worker.process_id, 1)):
            assert time.monotonic() < deadline
            for part in leased:
                done = [Settlement(item, Completed('"end"'), 0.1) for item in part.items]
                self.loop.run(self.store.items.settle(done, [part.lease]))
        counts = self.loop.run(self.store.views.counts(self.run_id, self.total))
        assert counts.unfinished == 0
        assert self._rows("SELECT count(*) FROM result")[0][0] == self.total
        assert self._rows("PRAGMA quick_check")[0][0] == "ok"


TestLedger = pytest.mark.untraced(LedgerMachine.TestCase)
TestLedger.settings = settings(max_examples=25, stateful_step_count=30)
