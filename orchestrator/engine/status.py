"""Status: the current state of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.ahead import Ahead, ahead
from orchestrator.domain.ask_totals import by_endpoint
from orchestrator.domain.run import RunState
from orchestrator.engine.awake.reaper import reap
from orchestrator.engine.report import traffic_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.run import Cause, Counts, Run, Tokens
    from orchestrator.domain.traffic import Traffic
    from orchestrator.domain.waiting import Waiting
    from orchestrator.domain.worker import Vitals
    from orchestrator.store import Store

_SAMPLED = 4  # chunks whose answers tell how long answers take: programs ask again and again


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The current state of a run. `later`: items that may not be asked again yet, if no process executes the run.

    `asks`: what a rollout has asked, by endpoint. `cost_left`: dollars that finishing will cost, if a process executes
    it and that is known. `workers`: the local workers of that process, if it is on this machine.
    """

    run: Run
    counts: Counts
    tokens: Tokens
    causes: Sequence[Cause]
    noted: Mapping[str, int]
    traffic: Traffic
    later: Waiting | None
    asks: Sequence[AskTotal] = ()
    cost_left: float | None = None
    workers: Sequence[Vitals] = field(default=())

    @property
    def state(self) -> str:
        """The run's state in one word."""
        return state_word(self.run)

    @property
    def waits(self) -> str | None:
        """What the run waits for: in the process that executes it, in the queue, or in the next process."""
        why = self.run.why if self.run.holder is not None or self.run.waits else None
        return why or (None if self.later is None else str(self.later))


def state_word(run: Run) -> str:
    """Return the run's state: "held" if the user holds it, "running" if a process executes it.

    A cancelled run is that at once, although its process still has to stop.
    """
    if run.held and not run.state.ended:
        return "held"
    return "running" if run.holder is not None and run.state is not RunState.CANCELLED else run.state


async def status_of(name: str | None, store: Store) -> RunStatus:
    """Return the status of a run, given by its number or its job's name; None is the latest run of all."""
    await reap(store)  # a run whose process was killed is not running
    run, views = await store.runs.find(name), store.views
    readings, executing = await store.readings.of(run.id), run.holder is not None
    left = ahead(await store.history.run(run.id), await store.history.windows(0.0, run.id)) if executing else Ahead()
    return RunStatus(
        run,
        await views.counts(run.id, run.total),
        await views.tokens(run.id),
        await views.causes(run.id),
        await views.noted(run.id),
        await traffic_in(store, run.id, readings, executing=executing, sampled=_SAMPLED),
        None if executing or run.state.ended else await views.later(run.id, time.time()),
        by_endpoint((await store.transcripts.totals([run.id])).get(run.id, [])),
        left.dollars,
    )
