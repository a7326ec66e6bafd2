"""Any interleaving of submissions, claims, executions, stops, commands and deaths keeps the guarantees of the queue.

A small model says which run is taken next and what every transition does; the ledger has to agree after each step.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.domain.attempt import Completed
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import Busy, UsageError
from orchestrator.domain.queue import TURN_AFTER, Claim, Submission
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.domain.terms import Spent, Terms
from orchestrator.store import Store
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.store.places import IN_MEMORY
from tests.store.queue_model import GONE, Modelled, claimed, refused

if TYPE_CHECKING:
    from collections.abc import Coroutine

CHUNKS = 3
JOBS, ENDPOINTS = ("a", "b", "c"), ("x", "y")
DAEMONS = st.integers(0, 1)
ANY = st.integers(0, 99)  # which of the existing runs


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.now = 1e9
        self.runs: dict[int, Modelled] = {}
        self.keys: dict[str, tuple[str, int]] = {}
        self.daemons: list[int] = []
        self.children: dict[int, int] = {}  # processes that have taken a run, and which
        self.by_hand: set[int] = set()
        self.dead: list[Claim] = []  # runs that zombies still believe to hold
        self.awake: dict[str, tuple[int, int]] = {}

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(coroutine)

    @initialize()
    def open(self) -> None:
        path = str(Path(self.folder.name) / "ledger.db")
        self.store: Store = self.do(self.stack.enter_async_context(Store.open(path)))
        self.daemons = [self.register(serves=True) for _ in range(2)]

    def register(self, *, serves: bool = False) -> int:
        started: int = self.do(self.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60, serves=serves))
        return started

    def picked(self, which: int) -> int:
        return list(self.runs)[which % len(self.runs)]

    # -- submitting ---------------------------------------------------------------------------------------------------

    @rule(
        job=st.sampled_from(JOBS),
        endpoints=st.frozensets(st.sampled_from(ENDPOINTS), min_size=1),
        later=st.sampled_from([-2 * TURN_AFTER, 0.0, 50.0]),
        priority=st.integers(0, 1),
        deadline=st.sampled_from([None, 5.0, 9.0]),
        waits=st.dictionaries(ANY, st.booleans(), max_size=2),
    )
    def submit(
        self,
        job: str,
        endpoints: frozenset[str],
        later: float,
        priority: int,
        deadline: float | None,
        waits: dict[int, bool],
    ) -> None:
        after = {self.picked(which): any_end for which, any_end in waits.items() if self.runs}
        wanted = Submission(job, {}, sorted(endpoints), self.now + later, priority, deadline, after=[*after.items()])
        number, new = self.do(self.store.queue.submit(wanted))
        assert new
        assert number not in self.runs
        self.runs[number] = Modelled(job, endpoints, self.now + later, priority, deadline, after)

    @rule(key=st.sampled_from("kl"), said=st.sampled_from("12"))
    def submit_with_key(self, key: str, said: str) -> None:
        wanted = Submission("a", {}, ["x"], self.now, key=key, key_hash=said)
        known = self.keys.get(key)
        if known is not None and self.runs[known[1]].key_is_free:
            known = None
        if known is not None and known[0] != said:
            with pytest.raises(UsageError, match="belongs to run"):
                self.do(self.store.queue.submit(wanted))
            return
        number, new = self.do(self.store.queue.submit(wanted))
        assert new == (known is None)
        assert known is None or known[1] == number
        if new:
            self.keys[key] = (said, number)
            self.runs[number] = Modelled("a", frozenset("x"), self.now, 0, None)

    # -- claiming -----------------------------------------------------------------------------------------------------

    @rule(who=DAEMONS)
    def claim(self, who: int) -> None:
        wanted = claimed(self.runs, self.awake, self.daemons, self.daemons[who], self.now)
        assert self.do(self.store.queue.claim(self.daemons[who], self.now)) == wanted

    # -- executing ----------------------------------------------------------------------------------------------------

    @rule(who=DAEMONS, which=ANY, source=st.sampled_from("sst"), reads_it=st.sampled_from([True, True, False]))
    def take(self, who: int, which: int, source: str, reads_it: bool) -> None:
        claims = [number for number, run in self.runs.items() if run.holder == self.daemons[who]]
        if claims:
            number = claims[which % len(claims)]
            claim = Claim(number, self.daemons[who])
            spec = Spec(self.runs[number].job, "f", source)
            if (refusal := refused(number, self.runs, self.daemons)) is not None:
                with pytest.raises(refusal):
                    self.do(self.store.runs.take(spec, self.register(), claim))
                return
            self.executed(number, claim, spec, reads_it=reads_it)

    @rule(job=st.sampled_from(JOBS), source=st.sampled_from("sst"))
    def run_by_hand(self, job: str, source: str) -> None:
        begun = [number for number, run in self.runs.items() if run.job == job and run.begun]
        begun = [number for number in begun if self.runs[number].state is not RunState.SUPERSEDED]
        ours = [run for run in self.runs.values() if run.job == job]
        if any(run.holder is not None and not run.delivered for run in ours):
            with pytest.raises(Busy, match="is being executed by"):
                self.do(self.store.runs.take(Spec(job, "f", source), self.daemons[0]))
            return
        self.executed(max(begun, default=None), None, Spec(job, "f", source), reads_it=True)
        self.by_hand.add(next(reversed(self.children)))

    def executed(self, number: int | None, claim: Claim | None, spec: Spec, *, reads_it: bool) -> None:
        """Let a process take the run, or its replacement, and read its input."""
        child, source = self.register(), str(spec.input_sha256)
        taken = self.do(self.store.runs.take(spec, child, claim))
        old = None if number is None else self.runs[number]
        fits = old is not None and old.state not in {RunState.INGESTING, RunState.CANCELLED} and old.read == source
        if old is not None and (fits or not old.begun):
            assert taken.id == number
            run = old
        else:
            assert taken.id not in self.runs
            run = Modelled(spec.job, frozenset(), None, 0, None)
            if old is not None and number is not None:
                self.replaced(number, old, taken.id, run)
            self.runs[taken.id] = run
        run.begun, run.holder, self.children[child] = True, child, taken.id
        for other, stale in self.runs.items():
            idle = stale.holder is None and stale.due is None and not stale.state.ended
            if idle and stale.job == run.job and other < taken.id:
                stale.state = RunState.SUPERSEDED
        self.stands_in(taken.id, run)
        if run.state is RunState.INGESTING and reads_it:
            self.do(self.ingest(taken.id, taken.job_id, source))
            run.state, run.read = RunState.OPEN, source

    def replaced(self, number: int, old: Modelled, new_number: int, new: Modelled) -> None:
        if old.due is not None:
            new.endpoints, new.due, new.priority, new.deadline = old.endpoints, old.due, old.priority, old.deadline
            new.after, new.tries, new.held = old.after, old.tries, old.held
            old.due, old.after, old.endpoints = None, {}, frozenset()
            for other in self.runs.values():
                other.after = {new_number if one == number else one: how for one, how in other.after.items()}
            self.keys = {key: (said, new_number if one == number else one) for key, (said, one) in self.keys.items()}
        if not old.state.ended:
            old.state = RunState.SUPERSEDED

    def stands_in(self, number: int, run: Modelled) -> None:
        """Replace earlier runs of its job that will not be finished: runs that wait for their success wait for it."""
        for waiting in self.runs.values():
            for other, any_end in list(waiting.after.items()):
                earlier = self.runs[other].job == run.job and other < number
                if waiting.due is not None and earlier and not any_end and self.runs[other].state in GONE:
                    del waiting.after[other]
                    waiting.after[number] = False
        run.after.pop(number, None)

    async def ingest(self, number: int, job: int, source: str) -> None:
        chunks = [[NewItem(f"{number}.{chunk}", "h", "{}", None)] for chunk in range(CHUNKS)]
        await self.store.snapshots.ingest(number, job, 0, chunks)
        await self.store.runs.ingested(number, total=CHUNKS, plan=Plan(new=CHUNKS), input_sha256=source)

    def child(self, which: int) -> Claim | None:
        children = list(self.children.items())
        return None if not children else Claim(*reversed(children[which % len(children)]))

    @rule(which=ANY)
    def settle(self, which: int) -> None:
        if (claim := self.child(which)) is None:
            return
        for leased in self.do(self.store.items.lease(claim.run_id, claim.process_id, 1)):
            done = [Settlement(item, Completed("1"), 0.1) for item in leased.items]
            self.do(self.store.items.settle(done, [leased.lease]))
            self.runs[claim.run_id].settled += 1

    @rule(which=ANY)
    def finish(self, which: int) -> None:
        claim = self.child(which)
        if claim is not None and self.runs[claim.run_id].settled == CHUNKS:
            self.do(self.store.runs.end(claim.run_id, claim.process_id, RunState.FINISHED))
            if self.runs[claim.run_id].state not in GONE:
                self.runs[claim.run_id].state = RunState.FINISHED

    @rule(which=ANY)
    def deliver(self, which: int) -> None:
        claim = self.child(which)
        if claim is not None and self.runs[claim.run_id].state is RunState.FINISHED:
            self.do(self.store.runs.delivered(claim.run_id, claim.process_id))
            self.runs[claim.run_id].delivered, self.runs[claim.run_id].due = True, None

    @rule(which=ANY, later=st.sampled_from([0.0, 30.0]), fruitless=st.booleans())
    def requeue(self, which: int, later: float, fruitless: bool) -> None:
        claim = self.child(which)
        if claim is None:
            return
        run = self.runs[claim.run_id]
        self.do(self.store.runs.end(claim.run_id, claim.process_id, RunState.STOPPED, "why"))
        self.do(self.store.queue.requeue(claim, self.now + later, "why", fruitless=fruitless))
        if run.state not in GONE and not (run.state is RunState.FINISHED and run.delivered):
            run.state = RunState.STOPPED
        if run.due is not None and run.state not in GONE:
            run.due, run.tries = self.now + later, run.tries if fruitless else 0
        self.leave(claim)

    @rule(which=ANY)
    def fail(self, which: int) -> None:
        claim = self.child(which)
        if claim is None or self.runs[claim.run_id].state is RunState.FINISHED:
            return
        self.do(self.store.runs.end(claim.run_id, claim.process_id, RunState.FAILED, "why"))
        self.do(self.store.queue.leave(claim))
        run = self.runs[claim.run_id]
        run.state, run.due = (run.state if run.state in GONE else RunState.FAILED), None
        self.leave(claim)

    @rule(which=ANY)
    def end(self, which: int) -> None:
        """End cleanly, without changing the queue."""
        if (claim := self.child(which)) is not None:
            self.leave(claim)

    def leave(self, claim: Claim) -> None:
        self.do(self.store.runs.leave(claim.process_id))
        self.gone(claim.process_id)

    def gone(self, process: int) -> None:
        self.children.pop(process, None)
        for run in self.runs.values():
            if run.holder == process:
                run.holder = None

    @rule(who=DAEMONS)
    def unclaim(self, who: int) -> None:
        """Unclaim runs that children of a daemon have not taken, or have left."""
        for number, run in self.runs.items():
            if run.holder == self.daemons[who]:
                self.do(self.store.queue.unclaim(Claim(number, self.daemons[who])))
                run.holder = None

    @rule(who=DAEMONS, which=ANY)
    def cannot_begin(self, who: int, which: int) -> None:
        claims = [number for number, run in self.runs.items() if run.holder == self.daemons[who]]
        if claims:
            number = claims[which % len(claims)]
            run = self.runs[number]
            self.do(self.store.queue.fail(Claim(number, self.daemons[who]), "why", owed=False))
            if run.state not in GONE:
                run.state, run.due = (run.state if run.state is RunState.FINISHED else RunState.FAILED), None

    # -- orders -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.runs)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        run = self.runs[self.picked(which)]
        assert self.do(self.store.runs.cancel(self.picked(which))) is run.state
        if not run.state.ended:
            run.state, run.due = RunState.CANCELLED, None

    @precondition(lambda self: self.runs)
    @rule(which=ANY, held=st.booleans())
    def hold(self, which: int, held: bool) -> None:
        self.do(self.store.runs.order(self.picked(which), {"held": held}))
        self.runs[self.picked(which)].held = held

    @precondition(lambda self: self.runs)
    @rule(which=ANY, priority=st.integers(0, 2))
    def prioritize(self, which: int, priority: int) -> None:
        self.do(self.store.queue.prioritize(self.picked(which), priority))
        self.runs[self.picked(which)].priority = priority

    # -- the world ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 30.0, 2 * TURN_AFTER, -TURN_AFTER]))
    def time_passes_or_the_clock_is_put_back(self, seconds: float) -> None:
        self.now += seconds

    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def wake_or_pause(self, endpoint: str) -> None:
        if endpoint in self.awake:
            window, process = self.awake.pop(endpoint)
            paused = self.store.windows.close(window, process, EndpointState.PAUSED, "", by="run", spent=Spent())
            self.do(paused)
        else:
            process = self.register()
            self.awake[endpoint] = (self.do(self.store.windows.enter(Terms(endpoint, {}), process)), process)

    @rule(which=ANY)
    def kill_a_child(self, which: int) -> None:
        if (claim := self.child(which)) is not None:
            self.bury(claim.process_id)

    @rule(who=DAEMONS)
    def kill_a_daemon(self, who: int) -> None:
        self.bury(self.daemons[who])
        self.daemons[who] = self.register(serves=True)

    def bury(self, process: int) -> None:
        self.dead += [Claim(number, process) for number, run in self.runs.items() if run.holder == process]
        (known,) = [one for one in self.do(self.store.runs.living()) if one.id == process]
        assert self.do(self.store.runs.bury(known))
        self.gone(process)

    @precondition(lambda self: self.dead)
    @rule(which=ANY, does=st.sampled_from(["end", "deliver", "put back", "leave", "fail", "unclaim", "prolong"]))
    def a_zombie_changes_nothing(self, which: int, does: str) -> None:
        claim = self.dead[which % len(self.dead)]
        match does:
            case "end":
                self.do(self.store.runs.end(claim.run_id, claim.process_id, RunState.FAILED, "why"))
            case "deliver":
                self.do(self.store.runs.delivered(claim.run_id, claim.process_id))
            case "put back":
                self.do(self.store.queue.requeue(claim, self.now, "why", fruitless=False))
            case "leave":
                self.do(self.store.queue.leave(claim))
            case "fail":
                self.do(self.store.queue.fail(claim, "why", owed=False))
            case "unclaim":
                self.do(self.store.queue.unclaim(claim))
            case _:
                assert not self.do(self.store.runs.prolong(claim.process_id, 60))

    # -- promises -----------------------------------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_what_the_model_says(self) -> None:
        async def rows() -> dict[int, tuple[Any, ...]]:
            statement = "SELECT id, state, due_at, priority, holder, held, tries, delivered_at IS NOT NULL FROM run"
            async with self.store.database.read() as connection:
                return {row[0]: tuple(row[1:]) for row in await connection.execute(statement)}

        if self.daemons:
            assert self.do(rows()) == {number: run.row for number, run in self.runs.items()}

    @invariant()
    def one_run_of_a_job_is_executed_at_a_time(self) -> None:
        for job in JOBS:
            executed = [run for run in self.runs.values() if run.job == job and run.holder in self.children]
            assert sum(not run.delivered and not run.state.ended for run in executed) <= 1

    @invariant()
    def one_queued_run_asks_an_endpoint_at_a_time(self) -> None:
        asking = [run for run in self.runs.values() if run.asks(self.daemons) and run.holder not in self.by_hand]
        for endpoint in ENDPOINTS:
            assert sum(endpoint in run.endpoints for run in asking) <= 1

    def teardown(self) -> None:
        with suppress(ValueError):
            self.do(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=30, stateful_step_count=40)
