"""orchestrator status: show the state and progress of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.options import AsJson, SomeRun
from orchestrator.cli.show import show_causes, token_line
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.answer import noted_words
from orchestrator.domain.ask_totals import ask_lines
from orchestrator.domain.traffic import traffic_lines
from orchestrator.report.listings import status_json
from orchestrator.report.progress import speed
from orchestrator.report.vitals import vitals_line

if TYPE_CHECKING:
    from orchestrator.engine.status import RunStatus


def status(context: typer.Context, run: SomeRun = None, json: AsJson = False) -> None:
    """Show a run's counts, rate, time left, tokens, traffic, workers on this machine, and failures by cause."""
    standing = with_app(context, lambda app: app.status(run), json=json)
    found, counts, causes = standing.run, standing.counts, standing.causes
    state, waits = standing.state, standing.waits
    if json:
        print_json(status_json(standing))
        return
    say(f"run {found.id} of {found.job}: {state}")
    say(f"{counts} {'' if waits else speed(found.rate, counts.unfinished, standing.cost_left)}".rstrip())
    for line in [*traffic_lines(standing.traffic), *ask_lines(standing.asks)]:
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
        show_causes(causes, counts.discarded)
    for hint in _hints(standing):
        STDERR.print(hint)


def _hints(standing: RunStatus) -> list[str]:
    """Return the commands that the user may want to type next."""
    run = standing.run
    hints = [f"see what happened: orchestrator logs {run.id}"] if standing.waits or run.error else []
    return hints + ([f"ask the discarded ones again: orchestrator retry {run.id}"] if standing.counts.discarded else [])
