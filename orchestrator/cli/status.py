"""orchestrator status: how a run stands."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.run import AsJson
from orchestrator.cli.show import count_line, show_causes, speed, token_line
from orchestrator.cli.terminal import STDERR, say
from orchestrator.cli.vitals import vitals_line, vitals_of_run
from orchestrator.domain.answer import by_name, noted_words
from orchestrator.engine.reaper import reap

if TYPE_CHECKING:
    from orchestrator.domain.answer import Note
    from orchestrator.domain.cause import Cause
    from orchestrator.domain.run import Counts, Run, Tokens
    from orchestrator.domain.vitals import Vitals
    from orchestrator.store import Store

SomeRun = Annotated[
    str | None, typer.Argument(help="A run's number, or a job's name for its latest run.", metavar="[RUN]")
]


def status(context: typer.Context, run: SomeRun = None, json: AsJson = False) -> None:
    """Counts by state, rate, time left, tokens, workers on this machine, and failures by cause with a sample."""
    found, counts, tokens, causes, workers, noted = with_store(context, partial(_status, run), json=json)
    state = state_word(found)
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
                **asdict(tokens),
                "noted": by_name(noted),
                "waiting": _waits(found),
                "error": found.error,
                "failures": [asdict(cause) for cause in causes],
                "workers": [asdict(worker) for worker in workers],
            }
        )
        return
    say(f"run {found.id} of {found.job}: {state}")
    waits = _waits(found)
    say(f"{count_line(counts)} {'' if waits else speed(found.rate, counts.unfinished)}".rstrip())
    if words := token_line(tokens):
        say(words)
    for line in noted_words(noted):
        say(line)
    for worker in workers:
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


def _waits(run: Run) -> str | None:
    """What a run waits for that a process executes, or that is in the queue."""
    return run.why if run.holder is not None or run.waits else None


async def _status(
    name: str | None, store: Store
) -> tuple[Run, Counts, Tokens, list[Cause], list[Vitals], dict[Note, int]]:
    await reap(store)  # a run whose process was killed is not running
    run = await store.runs.find(name)
    views, workers = store.views, await vitals_of_run(run.holder, store)
    counts, tokens = await views.counts(run.id, run.total), await views.tokens(run.id)
    return run, counts, tokens, await views.causes(run.id), workers, await views.noted(run.id)
