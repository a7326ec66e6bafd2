"""status: how a run stands."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.engine.awake.reaper import reap
from orchestrator.engine.report import traffic_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.run import Cause, Counts, Run, Tokens
    from orchestrator.domain.traffic import Traffic
    from orchestrator.domain.waiting import Waiting
    from orchestrator.domain.worker import Vitals
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it stands. `later`: items that may not be asked again yet, if no process is executing the run.

    `workers`: those of the process that executes it, if they are on this machine.
    """

    run: Run
    counts: Counts
    tokens: Tokens
    causes: Sequence[Cause]
    noted: Mapping[str, int]
    traffic: Traffic
    later: Waiting | None
    workers: Sequence[Vitals] = field(default=())

    @property
    def state(self) -> str:
        """The run's state in a word."""
        return state_word(self.run)

    @property
    def waits(self) -> str | None:
        """What is waited for: by the process that executes the run, in the queue, or by the next one."""
        why = self.run.why if self.run.holder is not None or self.run.waits else None
        return why or (None if self.later is None else str(self.later))


def state_word(run: Run) -> str:
    """The run's state; one that a process executes is running, unless somebody wants it to rest."""
    if run.held and not run.state.ended:
        return "held"
    return "running" if run.holder is not None else run.state


async def status_of(name: str | None, store: Store) -> RunStatus:
    """How a run stands, by its number or its job's name; None is the latest of all."""
    await reap(store)  # a run whose process was killed is not running
    run, views = await store.runs.find(name), store.views
    readings, executing = await store.readings.of(run.id), run.holder is not None
    return RunStatus(
        run,
        await views.counts(run.id, run.total),
        await views.tokens(run.id),
        await views.causes(run.id),
        await views.noted(run.id),
        await traffic_in(store, run.id, readings, executing=executing),
        None if executing or run.state.ended else await views.later(run.id, time.time()),
    )
