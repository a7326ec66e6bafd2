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

from orchestrator.domain.errors import Fenced, OrchestratorError, PauseUnconfirmed, RunFailed, RunStopped
from orchestrator.domain.limiter import Limiter
from orchestrator.domain.run import Counts, RunState, Spec
from orchestrator.domain.sizing import Sizer
from orchestrator.engine.awake import Awake, Guard, Tenant, awake
from orchestrator.engine.breaker import BreakerTripped
from orchestrator.engine.deliver import deliver
from orchestrator.engine.desk import Desk, Work, desk_of
from orchestrator.engine.fanout import Effort
from orchestrator.engine.flights import Flights
from orchestrator.engine.ingest import Snapshot, ingest
from orchestrator.engine.orders import LOOK, Orders
from orchestrator.engine.progress import Phase, Presence
from orchestrator.engine.reaper import BEAT, LEASE, registered
from orchestrator.engine.reparse import reparse
from orchestrator.engine.stay import Stay, stay
from orchestrator.engine.sweep import Revive, Swept, sweep
from orchestrator.engine.tasks import task_group
from orchestrator.job import Weighted, fingerprint_of
from orchestrator.store.runs import Tuned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from orchestrator.domain.run import Plan, Run, Tokens
    from orchestrator.engine.progress import Progress
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.views import Cause


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
class Report:
    """How a run ended. `stays`: of endpoints that bill. `out`: of no more use before the end, and why, by name."""

    run: Run
    plan: Plan
    counts: Counts
    asked: int  # requests made in this process
    settled: int  # items settled in this process
    seconds: float
    causes: list[Cause]
    manifest: Mapping[str, object]
    tokens: Tokens
    shared: int = 0  # of the settled ones: not asked, since an item with the same request was
    stays: list[Stay] = field(default_factory=list)
    out: Mapping[str, str] = field(default_factory=dict)
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
                    debts.start_soon(execution.sweep, job.endpoint_names)
                    await _snapshot(Snapshot(job, identity, request.limit), run, store, progress)
                    await execution.work_off()
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await _note_end(store, run.id, process_id, error)
                raise
            await execution.finish()
            helpers.cancel_scope.cancel()
    progress.step = Phase.DONE
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
        tokens=await store.views.tokens(run.id),
        shared=progress.shared,
        stays=execution.stays,
        out=execution.out,
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
        self._run = run
        self._process_id = process_id
        self._store = store
        self._progress = progress
        self._stop = stop
        self._safety = safety
        self._orders = orders
        self._out: dict[str, OrchestratorError] = {}  # endpoints that are of no more use to this run, and why
        self._stays: dict[str, Stay] = {}
        self._finishing = anyio.Lock()
        self.manifest: Mapping[str, object] | None = None
        self.swept: list[Swept] = []

    @property
    def stays(self) -> list[Stay]:
        """What the use of each endpoint that bills came to."""
        return list(self._stays.values())

    @property
    def out(self) -> dict[str, str]:
        """Endpoints that were of no more use before the run's end, and why."""
        return {name: str(failure) for name, failure in self._out.items()}

    async def sweep(self, spare: Collection[str] = ()) -> None:
        """Pay the debts of dead processes."""
        self.swept += await sweep(self._store, self._safety.revive, self._process_id, spare=spare)

    async def work_off(self) -> None:
        """Settle everything; with nothing to do, nobody is woken."""
        counts = await self._counts()
        if counts.unfinished:
            await self._store.runs.reopen(self._run.id)
            self._progress.start = counts
        while counts.unfinished:
            before, out = counts, len(self._out)
            counts = await self._shift(self._wanted(counts))
            if not counts.unfinished:
                break
            if self._stop.is_set():
                raise RunStopped("stopped as asked; run the same command again to continue")
            if self._orders.held:
                await self._rest()
            elif counts.settled == before.settled and len(self._out) == out:
                raise RunStopped(f"{counts.unfinished:,} items are left that nobody asks; run the same command again")
        await self.sweep()  # whoever was spared and not used

    def _wanted(self, counts: Counts) -> list[Weighted]:
        """Who is to be asked now: all that are of use; the fallback alone where little is left, or nobody else.

        Raises why the last one is of no more use, where none is left.
        """
        main = [one for one in self._job.endpoints if one.endpoint.name not in self._out]
        fallback = self._fallback
        if fallback is not None and (not main or counts.unfinished < self._job.policy.fallback_below):
            return [Weighted(fallback)]
        if not main:
            *others, last = self._out.items()
            for name, failure in others:
                last[1].add_note(f"before it, {name}: {failure}")
            raise last[1]
        return main

    @property
    def _fallback(self) -> Endpoint | None:
        """The job's fallback, as long as it is of use."""
        fallback = self._job.fallback
        return None if fallback is None or fallback.name in self._out else fallback

    async def _rest(self) -> None:
        """Wait until whoever holds the run lets it go on, or until it is stopped."""
        self._progress.note = f"held; `orchestrator go {self._run.id}` lets it go on"
        async with task_group() as waiting:
            waiting.start_soon(_cancel_at, self._stop, waiting.cancel_scope)
            await self._orders.until(held=False)
            waiting.cancel_scope.cancel()
        self._progress.note = ""

    async def _shift(self, wanted: Sequence[Weighted]) -> Counts:
        """Have these endpoints asked until everything is settled, or somebody halts it, or none is of use."""
        halt, flights, job = anyio.Event(), Flights(), self._job
        work = Work(self._store, self._run.id, self._process_id, job.parse, job.policy, self._progress, halt)
        async with task_group() as watchers:
            watchers.start_soon(_forward, self._stop.wait, halt)
            watchers.start_soon(_forward, partial(self._orders.until, held=True), halt)
            async with desk_of(work) as desk, task_group() as stays:
                for one in wanted:
                    stays.start_soon(self._stay_at, one, desk, flights)
            watchers.cancel_scope.cancel()
        return await self._counts()

    async def _stay_at(self, one: Weighted, desk: Desk, flights: Flights) -> None:
        """Wake, ask, pause. What goes wrong with one endpoint is no reason to leave the others."""
        endpoint, store = one.endpoint, self._store
        presence = Presence(endpoint.name)
        tenant = Tenant(store, self._process_id, presence, self._safety.guard, self._run.id, self._job.name)
        lent: Awake | None = None
        self._progress.present.append(presence)
        try:
            async with awake(endpoint, tenant) as lent:
                await self._ask(lent, one, presence, desk, flights)
                if lent.lingers and desk.finished and not desk.work.stop.is_set():
                    await self.finish()  # nobody waits for answers because the endpoint is kept awake
                    await lent.linger(self._stop)
        except (Fenced, PauseUnconfirmed):
            raise  # no endpoint's affair, and worse news than anything else
        except BreakerTripped as tripped:
            await desk.settled()
            await desk.forgive(tripped.keys)
            self._out[endpoint.name] = tripped
        except (RunFailed, RunStopped) as failure:
            self._out[endpoint.name] = failure
        finally:
            self._progress.present.remove(presence)
            if lent is not None and lent.terms is not None:
                before = self._stays.get(endpoint.name)
                spent = lent.spent if before is None else lent.spent + before.spent
                self._stays[endpoint.name] = Stay(endpoint.name, spent, lent.price_per_hour, lent.proof)
                self._progress.proofs += [lent.proof] if lent.proof is not None else []

    async def _ask(self, lent: Awake, one: Weighted, presence: Presence, desk: Desk, flights: Flights) -> None:
        """Ask one endpoint, as many requests and items at once as were best the last time, or as is found best now."""
        policy, halt = self._job.policy, anyio.Event()
        shape = _shape(self._job, self._run, one.endpoint)
        tuned = await self._store.runs.tuned(shape)
        limiter = sizer = None
        if policy.concurrency == "auto":
            known = tuned.concurrency
            limiter = Limiter() if known is None else Limiter(known, remembered=True)
        if policy.batch_size not in {None, 1}:
            given = None if policy.batch_size == "auto" else policy.batch_size
            sizer = Sizer(tuned.batch_size or given)
        below = policy.fallback_below if self._fallback not in (None, one.endpoint) else 0
        effort = Effort(presence, self._orders, halt, limiter, sizer, one.weight, leave_below=below)
        async with task_group() as watchers:
            watchers.start_soon(_forward, desk.work.stop.wait, halt)
            await stay(lent, desk, flights, effort)
            watchers.cancel_scope.cancel()
        found = Tuned(
            None if limiter is None else limiter.best, sizer.size if sizer is not None and sizer.settled else None
        )
        await self._store.runs.remember(shape, found)

    async def finish(self) -> None:
        """Everything is settled: say so and deliver, once."""
        async with self._finishing:
            if self.manifest is not None:
                return
            await self._store.runs.end(self._run.id, self._process_id, RunState.FINISHED)
            self._progress.step = Phase.DELIVER
            self.manifest = await deliver(await self._store.runs.find(str(self._run.id)), self._store, self._job.sink)

    async def _counts(self) -> Counts:
        total = (await self._store.runs.find(str(self._run.id))).total
        return await self._store.views.counts(self._run.id, total)


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
    identity = job.identity()
    about = {
        **(request.about or {}),
        "source": job.source.describe(),
        "output": str(job.sink.path),
        "keep": job.sink.keep,
        "endpoint": ", ".join(one.endpoint.name for one in job.endpoints),
        "identity": identity,
        "limit": request.limit,
        "parse": fingerprint_of(job.parse),
    }
    spec = Spec(job.name, job.fingerprint(identity, request.limit), job.source.sha256(), about)
    return spec, identity


def _shape(job: Job, run: Run, endpoint: Endpoint) -> str:
    """What the best numbers of requests and items at once depend on: the endpoint, and what shapes its answers."""
    about = [endpoint.name, run.spec.about.get("identity"), job.policy.batch_size]
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
