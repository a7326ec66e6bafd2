"""orchestrator status: how a run stands."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.run import AsJson
from orchestrator.cli.show import count_line, show_causes, speed, token_line
from orchestrator.cli.terminal import STDERR, say
from orchestrator.cli.vitals import vitals_line, vitals_of_run
from orchestrator.domain.answer import by_name, noted_words
from orchestrator.domain.traffic import traffic_lines
from orchestrator.engine.reaper import reap
from orchestrator.engine.report import traffic_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.cause import Cause
    from orchestrator.domain.run import Counts, Run, Tokens
    from orchestrator.domain.traffic import Traffic
    from orchestrator.domain.vitals import Vitals
    from orchestrator.domain.waiting import Waiting
    from orchestrator.store import Store

SomeRun = Annotated[
    str | None, typer.Argument(help="A run's number, or a job's name for its latest run.", metavar="[RUN]")
]


@dataclass(frozen=True, slots=True)
class _Standing:
    """A run as it stands. `later`: items that may not be asked again yet, where no process is at work to say so."""

    run: Run
    counts: Counts
    tokens: Tokens
    causes: Sequence[Cause]
    workers: Sequence[Vitals]
    noted: Mapping[str, int]
    traffic: Traffic
    later: Waiting | None

    @property
    def waits(self) -> str | None:
        """What is waited for: by the process that executes the run, in the queue, or by the next one."""
        said = self.run.why if self.run.holder is not None or self.run.waits else None
        return said or (None if self.later is None else str(self.later))


def status(context: typer.Context, run: SomeRun = None, json: AsJson = False) -> None:
    """Counts by state, rate, time left, requests, tokens, workers on this machine, and failures by cause."""
    standing = with_store(context, partial(_status, run), json=json)
    found, counts, causes = standing.run, standing.counts, standing.causes
    state, waits = state_word(found), standing.waits
    if json:
        rate = found.rate if found.holder is not None else None
        print_json(
            {
                "run": found.id,
                "job": found.job,
                "state": state,
                "counts": asdict(counts) | {"available": counts.unfinished - counts.leased},
                "rate": rate,
                "seconds_left": counts.unfinished / rate if rate else None,
                **asdict(standing.tokens),
                "traffic": asdict(standing.traffic),
                "noted": by_name(standing.noted),
                "waiting": waits,
                "error": found.error,
                "failures": [asdict(cause) for cause in causes],
                "workers": [asdict(worker) for worker in standing.workers],
            }
        )
        return
    say(f"run {found.id} of {found.job}: {state}")
    say(f"{count_line(counts)} {'' if waits else speed(found.rate, counts.unfinished)}".rstrip())
    for line in traffic_lines(standing.traffic):
        say(line)
    if words := token_line(standing.tokens):
        say(words)
    for line in noted_words(standing.noted, found.id):
        say(line)
    for worker in standing.workers:
        say(vitals_line(worker))
    if waits:
        say(f"waiting: {waits}")
    if found.error:
        say(f"ended early: {found.error}")
    if causes:
        show_causes(causes)
    if counts.discarded:
        STDERR.print(f"ask the discarded ones again: orchestrator retry {found.id}")


def state_word(run: Run) -> str:
    """The run's state; one that a process executes is running, unless somebody wants it to rest."""
    if run.held and not run.state.ended:
        return "held"
    return "running" if run.holder is not None else run.state


async def _status(name: str | None, store: Store) -> _Standing:
    await reap(store)  # a run whose process was killed is not running
    run, views = await store.runs.find(name), store.views
    readings, executing = await store.readings.of(run.id), run.holder is not None
    return _Standing(
        run,
        await views.counts(run.id, run.total),
        await views.tokens(run.id),
        await views.causes(run.id),
        await vitals_of_run(run.holder, store),
        await views.noted(run.id),
        await traffic_in(store, run.id, readings, executing=executing),
        None if executing or run.state.ended else await views.later(run.id, time.time()),
    )
