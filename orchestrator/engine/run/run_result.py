"""RunResult: how a run ended, for the caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.readings import asked
from orchestrator.domain.traffic import Traffic
from orchestrator.engine.report import traffic_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.charges import Charge
    from orchestrator.domain.run import Cause, Counts, Plan, Run, Tokens
    from orchestrator.engine.awake.sweep import Swept
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.execution import Execution
    from orchestrator.engine.run.session import SessionCost
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `session_costs`: of endpoints that bill. `out`: dropped endpoints by name, and why."""

    run: Run
    plan: Plan
    counts: Counts
    asked: int  # requests made in this process
    settled: int  # items settled in this process
    seconds: float
    asking: float  # of these, seconds in which something was asked
    causes: list[Cause]
    manifest: Mapping[str, object]
    tokens: Tokens
    shared: int = 0  # settled items that were not asked, since an item with the same request was
    session_costs: list[SessionCost] = field(default_factory=list)
    charges: Mapping[str, Charge] = field(default_factory=dict)  # of this process, by endpoint that charges by use
    out: Mapping[str, str] = field(default_factory=dict)
    swept: list[Swept] = field(default_factory=list)
    noted: Mapping[str, int] = field(default_factory=dict)
    hints: Sequence[str] = ()  # suggestions concerning the items of the plan
    traffic: Traffic = field(default_factory=Traffic)  # of all processes that worked on the run
    asks: Sequence[AskTotal] = ()  # what a rollout has asked, by endpoint and step


async def result_of(
    run_id: int, process_id: int, execution: Execution, progress: Progress, store: Store, seconds: float
) -> RunResult:
    """Return the result of a finished run; `seconds`: the time that this process took."""
    run, readings = await store.runs.find(str(run_id)), await store.readings.of(run_id)
    return RunResult(
        run=run,
        plan=progress.plan,
        counts=await store.views.counts(run.id, run.total),
        asked=progress.asked,
        settled=progress.completed + progress.discarded,
        seconds=seconds,
        asking=asked([reading for reading in readings if reading.process_id == process_id]).asking,
        causes=await store.views.causes(run.id),
        manifest=execution.manifest or {},
        tokens=await store.views.tokens(run.id),
        shared=progress.shared,
        session_costs=execution.session_costs,
        charges=progress.charges,
        out=execution.out,
        swept=execution.swept,
        noted=await store.views.noted(run.id),
        hints=tuple(progress.hints),
        traffic=await traffic_in(store, run.id, readings, executing=False),
        asks=(await store.transcripts.totals([run.id])).get(run.id, []),
    )
