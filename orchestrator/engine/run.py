"""run_job: ingest -> awake -> fan out -> deliver."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.budget import to_finish
from orchestrator.domain.errors import EndpointLost, OrchestratorError, RunStopped
from orchestrator.domain.limiter import Limiter
from orchestrator.domain.run import Counts, RunState, Spec
from orchestrator.engine.awake import Awake, Guard, Tenant, awake
from orchestrator.engine.breaker import BreakerTripped
from orchestrator.engine.deliver import deliver
from orchestrator.engine.fanout import Work, fan_out
from orchestrator.engine.ingest import Snapshot, ingest
from orchestrator.engine.orders import LOOK, Orders
from orchestrator.engine.progress import Phase
from orchestrator.engine.reaper import BEAT, LEASE, registered
from orchestrator.engine.reparse import reparse
from orchestrator.engine.sweep import Revive, Swept, sweep
from orchestrator.engine.tasks import task_group
from orchestrator.job import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from orchestrator.domain.run import Plan, Run
    from orchestrator.domain.terms import Spent
    from orchestrator.engine.progress import Progress
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.views import Cause

FRUITLESS_LOSSES = 3  # times the endpoint may be lost in a row without anything settled between
_LONGEST_BREATH = 60.0  # seconds that are waited because the endpoint says so
_BREATH = 1.0  # seconds before an endpoint that was lost to no avail is tried again, and one more each time


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to have run. `about` is kept in the ledger with the run and holds no secret."""

    job: Job
    limit: int | None = None
    about: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Safety:
    """What pauses endpoints when this process cannot, or when another one could not.

    `guard` opens the guard process; `revive` makes an endpoint of what the ledger keeps of it.
    """

    guard: Guard
    revive: Revive


def _unknown(fields: Mapping[str, object]) -> Endpoint:
    raise RunStopped(f"this process does not know endpoints of kind {fields.get('kind')!r}")


UNGUARDED = Safety(nullcontext, _unknown)


@dataclass(frozen=True, slots=True)
class Stay:
    """What one run's use of an endpoint that bills came to. `proof` is how it was left, and when that was seen."""

    endpoint: str
    spent: Spent
    price_per_hour: float | None
    proof: str | None

    @property
    def cost(self) -> float | None:
        """Dollars, where the price is known. With other runs on the same endpoint, the seconds are shared."""
        return self.spent.cost(self.price_per_hour)


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended. `stay` is None where nobody had to be woken, or where nothing bills."""

    run: Run
    plan: Plan
    counts: Counts
    asked: int  # requests made in this process
    settled: int  # items settled in this process
    seconds: float
    causes: list[Cause]
    manifest: Mapping[str, object]
    stay: Stay | None = None
    swept: list[Swept] = field(default_factory=list)


async def run_job(
    request: Request, store: Store, progress: Progress, stop: anyio.Event, safety: Safety = UNGUARDED
) -> Report:
    """Run a job to its end and deliver. Safe to call again after any kind of stop: every step goes on where it was.

    Once `stop` is set nothing new is asked, and when the answers in flight are in, `RunStopped` is raised. Debts of
    dead processes are paid on the way.
    """
    started = time.monotonic()
    job = request.job
    spec, identity = await to_thread.run_sync(_spec, request)
    async with registered(store) as process_id:
        run = await store.runs.take(spec, process_id)
        progress.run = run.id
        orders = Orders()
        execution = _Execution(job, run, process_id, store, progress, stop, safety, orders)
        async with task_group() as helpers:
            helpers.start_soon(_stay_alive, store, process_id, run.id, progress)
            helpers.start_soon(_heed, store, run.id, orders)
            try:
                async with task_group() as debts:
                    debts.start_soon(execution.sweep, job.endpoint.name)
                    await _snapshot(Snapshot(job, identity, request.limit), run, store, progress)
                    await execution.work_off()
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await _note_end(store, run.id, process_id, error)
                raise
            await execution.finish()
            helpers.cancel_scope.cancel()
    progress.phase = Phase.DONE
    run = await store.runs.find(str(run.id))
    return Report(
        run=run,
        plan=progress.plan,
        counts=await store.views.counts(run.id, run.total),
        asked=progress.asked,
        settled=progress.completed + progress.discarded,
        seconds=time.monotonic() - started,
        causes=await store.views.causes(run.id),
        manifest=execution.manifest or {},
        stay=execution.stay,
        swept=execution.swept,
    )


class _Execution:
    """One run in this process."""

    def __init__(
        self,
        job: Job,
        run: Run,
        process_id: int,
        store: Store,
        progress: Progress,
        stop: anyio.Event,
        safety: Safety,
        orders: Orders,
    ) -> None:
        self._job = job
        self._run_id = run.id
        self._process_id = process_id
        self._store = store
        self._progress = progress
        self._stop = stop
        self._safety = safety
        self._orders = orders
        self._shape = _shape(job, run)
        self.manifest: Mapping[str, object] | None = None
        self.stay: Stay | None = None
        self.swept: list[Swept] = []

    async def sweep(self, spare: str | None = None) -> None:
        """Pay the debts of dead processes."""
        self.swept += await sweep(self._store, self._safety.revive, self._process_id, spare=spare)

    async def work_off(self) -> None:
        """Settle everything; with nothing to do, nobody is woken."""
        if not (await self._counts()).unfinished:
            await self.sweep()
            return
        await self._store.runs.reopen(self._run_id)
        self._progress.start = await self._counts()
        while await self._one_stay():
            self._progress.note = f"held; `orchestrator go {self._run_id}` lets it go on"
            async with task_group() as waiting:
                waiting.start_soon(_cancel_at, self._stop, waiting.cancel_scope)
                await self._orders.until(held=False)
                waiting.cancel_scope.cancel()
            self._progress.note = ""

    async def _one_stay(self) -> bool:
        """Wake, ask, pause; True where somebody holds the run before everything is settled."""
        tenant = Tenant(self._store, self._process_id, self._progress, self._safety.guard, self._run_id, self._job.name)
        endpoint: Awake | None = None
        try:
            async with awake(self._job.endpoint, tenant) as endpoint:
                held = await self._ask_all(endpoint)
                if endpoint.lingers and not held:
                    await self.finish()  # nobody waits for answers because the endpoint is kept awake
                    await endpoint.linger(self._stop)
        finally:
            if endpoint is not None and endpoint.terms is not None:
                spent = endpoint.spent if self.stay is None else endpoint.spent + self.stay.spent
                self.stay = Stay(endpoint.name, spent, endpoint.price_per_hour, endpoint.proof)
                self._progress.proof = endpoint.proof
        return held

    async def finish(self) -> None:
        """Everything is settled: say so and deliver, once."""
        if self.manifest is not None:
            return
        await self._store.runs.end(self._run_id, self._process_id, RunState.FINISHED)
        self._progress.phase = Phase.DELIVER
        self.manifest = await deliver(await self._store.runs.find(str(self._run_id)), self._store, self._job.sink)

    async def _counts(self) -> Counts:
        total = (await self._store.runs.find(str(self._run_id))).total
        return await self._store.views.counts(self._run_id, total)

    async def _ask_all(self, endpoint: Awake) -> bool:
        """Ask until everything is settled; True where somebody holds the run before that."""
        store, policy, halt = self._store, self._job.policy, anyio.Event()
        tuned = await store.runs.tuned(self._shape)
        limiter = None
        if policy.concurrency == "auto":
            limiter = Limiter() if tuned is None else Limiter(tuned, remembered=True)
        run_id, process_id, parse = self._run_id, self._process_id, self._job.parse
        work = Work(store, run_id, process_id, parse, policy, self._progress, halt, self._orders, limiter)
        async with task_group() as watchers:
            watchers.start_soon(_forward, self._stop.wait, halt)
            watchers.start_soon(_forward, partial(self._orders.until, held=True), halt)
            counts = await self._until_settled(endpoint, work)
            watchers.cancel_scope.cancel()
        if limiter is not None:
            await store.runs.remember(self._shape, limiter.best)
        if counts.unfinished and endpoint.budget_spent:
            raise RunStopped(self._over_budget(endpoint, counts))
        if counts.unfinished and self._orders.held and not self._stop.is_set():
            await store.items.release(process_id)
            return True
        if counts.unfinished:
            raise RunStopped("stopped as asked; run the same command again to continue")
        return False

    async def _until_settled(self, endpoint: Awake, work: Work) -> Counts:
        """Ask until everything is settled, or halted. An endpoint that is lost is looked at and woken again."""
        store, policy, halt = self._store, self._job.policy, work.stop
        patience = _Patience(self._job.endpoint.startup_timeout)
        suspects: set[int] = set()
        counts = await self._counts()
        while counts.unfinished and not halt.is_set():
            try:
                async with endpoint.connect(policy) as model, endpoint.within_budget(policy, halt):
                    patience.connected(waited=endpoint.waited)
                    # lost in vain, and yet there at once: what it was asked may be why
                    blames_large = patience.tried and not endpoint.waited
                    await fan_out(work, model, suspects, blames_large=blames_large)
            except EndpointLost as loss:
                await store.items.release(self._process_id)
                before, counts = counts, await self._counts()
                self._progress.note = f"endpoint lost ({loss}), waking it again"
                breath = patience.lost(loss, progressed=counts.settled > before.settled)
                if breath is None:
                    raise RunStopped(
                        f"endpoint {endpoint.name} was lost {FRUITLESS_LOSSES} times in a row with nothing done "
                        f"between: {loss}; run the same command again to continue"
                    ) from loss
                with anyio.move_on_after(breath):
                    await halt.wait()
            except BreakerTripped as tripped:
                await store.items.release(self._process_id)
                await store.items.forgive(self._run_id, tripped.keys)
                raise
            else:
                counts = await self._counts()
        return counts

    def _over_budget(self, endpoint: Awake, counts: Counts) -> str:
        spent, price = endpoint.spent, endpoint.price_per_hour
        seconds = to_finish(counts.unfinished, self._progress.completed + self._progress.discarded, spent)
        text = f"the budget is spent ({spent.seconds:.0f} s awake"
        text += f", ${spent.cost(price):.2f})" if price is not None else ")"
        text += f" with {counts.unfinished:,} items left"
        if seconds is not None:
            text += f", which would take about {seconds:.0f} s more"
            text += f" and cost about ${seconds * price / 3600:.2f}" if price is not None else ""
        return text + "; run the same command again to continue, with as much budget again"


class _Patience:
    """How often an endpoint may be lost without anything done between."""

    def __init__(self, startup_timeout: float) -> None:
        self._startup_timeout = startup_timeout
        self._progressed_at = anyio.current_time()
        self._starting = False
        self._fruitless = 0

    @property
    def tried(self) -> bool:
        """Whether the endpoint was lost with nothing done since."""
        return self._fruitless > 0

    def connected(self, *, waited: bool) -> None:
        """The endpoint answers again. Where it was starting, as it said, nothing is held against it."""
        if self._starting and waited and anyio.current_time() < self._progressed_at + self._startup_timeout:
            self._fruitless = 0

    def lost(self, loss: EndpointLost, *, progressed: bool) -> float | None:
        """Seconds to wait before the endpoint is tried again; None when it has been tried enough."""
        self._starting = loss.starting
        if progressed:
            self._fruitless, self._progressed_at = 0, anyio.current_time()
        if loss.retry_after is not None and anyio.current_time() < self._progressed_at + self._startup_timeout:
            return min(loss.retry_after, _LONGEST_BREATH)  # it has named its time, and has it
        if progressed:
            return 0.0
        self._fruitless += 1
        return None if self._fruitless >= FRUITLESS_LOSSES else _BREATH * (self._fruitless - 1)


async def _forward(awaited: Callable[[], Awaitable[None]], halt: anyio.Event) -> None:
    await awaited()
    halt.set()


async def _cancel_at(stop: anyio.Event, scope: anyio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


async def _heed(store: Store, run_id: int, orders: Orders) -> None:
    """Look for what somebody wants of this run."""
    while True:
        state, held, concurrency = await store.runs.orders(run_id)
        if state is RunState.CANCELLED:
            raise RunStopped(f"run {run_id} was cancelled")
        orders.apply(held=held, concurrency=concurrency)
        await anyio.sleep(LOOK)


def _spec(request: Request) -> tuple[Spec, Mapping[str, object]]:
    """What the run is made from, and the endpoint's identity. Reads the source, the model, the job's functions."""
    job = request.job
    identity = job.endpoint.identity(job.policy)
    about = {
        **(request.about or {}),
        "source": job.source.describe(),
        "output": str(job.sink.path),
        "keep": job.sink.keep,
        "endpoint": job.endpoint.name,
        "identity": identity,
        "limit": request.limit,
        "parse": fingerprint_of(job.parse),
    }
    spec = Spec(job.name, job.fingerprint(identity, request.limit), job.source.sha256(), about)
    return spec, identity


def _shape(job: Job, run: Run) -> str:
    """What the best number of requests at once depends on: the endpoint, what shapes its answers, and the batches."""
    about = [job.endpoint.name, run.spec.about.get("identity"), job.policy.batch_size]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


async def _snapshot(snapshot: Snapshot, run: Run, store: Store, progress: Progress) -> None:
    """Have the run's items in the ledger: they are there already where the run is being continued."""
    if run.state is RunState.INGESTING:
        job = snapshot.job
        await reparse(store, run.job_id, job.parse, str(run.spec.about["parse"]))
        await ingest(snapshot, run, store, progress)
    else:
        progress.plan = await store.views.plan_left(run)


async def _stay_alive(store: Store, process_id: int, run_id: int, progress: Progress) -> None:
    """Keep this process's leases, and show the run's rate to others."""
    while True:
        await store.runs.beat(process_id, LEASE, run_id=run_id, rate=progress.rate())
        await anyio.sleep(BEAT)


async def _note_end(store: Store, run_id: int, process_id: int, error: BaseException) -> None:
    """Say in the ledger why the run is not finished. A full disk must not hide the reason behind its own."""
    failed = isinstance(error, OrchestratorError) and not isinstance(error, RunStopped)
    state = RunState.FAILED if failed else RunState.STOPPED
    reason = str(error) if isinstance(error, OrchestratorError) else "interrupted"
    try:
        await store.runs.end(run_id, process_id, state, reason)
    except OrchestratorError as second:
        error.add_note(f"(the ledger could not note it: {second})")
