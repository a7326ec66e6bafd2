"""orchestrator submit: put a run into the queue."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestrator.cli.command import Missing, print_json, reported, with_app
from orchestrator.cli.options import AsJson, JobFile, Limit, Overrides, Overwrite, Reuse, priority_of
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.moment import moment_at
from orchestrator.engine.daemon.submit import Queueing
from orchestrator.engine.run.run_request import request_from
from orchestrator.report.listings import moment, queued_word, submitted_json

At = Annotated[
    str, typer.Option(help="Earliest start: +2h, 22:00, '22:00 Europe/Paris', '2026-11-22 03:00'.", metavar="TIME")
]
Deadline = Annotated[
    str | None,
    typer.Option(help="When the answers are needed; more urgent runs go first.", metavar="TIME"),
]
Priority = Annotated[
    int | None,
    typer.Option(help="Runs with a higher priority go first; the default is 0.", metavar="N", parser=priority_of),
]
After = Annotated[
    list[str] | None, typer.Option(help="Start only after this run has succeeded; repeatable.", metavar="RUN|JOB")
]
AfterEnd = Annotated[
    list[str] | None, typer.Option(help="Start only after this run has ended, however; repeatable.", metavar="RUN|JOB")
]
Key = Annotated[
    str | None,
    typer.Option(
        help="Submitting again with the same key queues no second run, unless the first has failed.", metavar="KEY"
    ),
]


def submit(
    context: typer.Context,
    jobfile: JobFile,
    at: At = "+0s",
    deadline: Deadline = None,
    priority: Priority = None,
    after: After = None,
    after_end: AfterEnd = None,
    key: Key = None,
    limit: Limit = None,
    reuse: Reuse = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Queue a run of a job; a daemon (`orchestrator serve`) executes it."""
    now = time.time()
    with reported(json=json):
        request = request_from(jobfile, limit=limit, overrides=overrides or (), overwrite=overwrite, reuse=reuse or ())
    due_at = _moment(at, now, "--at")
    queueing = Queueing(
        due_at,
        None if deadline is None else _moment(deadline, now, "--deadline"),
        0 if priority is None else priority,
        [*((name, False) for name in after or []), *((name, True) for name in after_end or [])],
        key,
        (at, deadline, priority, after, after_end),
    )
    found = with_app(context, lambda app: app.submit(request, queueing), json=json, missing=Missing.CREATE)
    run, job = found.run, request.job
    if json:
        print_json(submitted_json(found, due_at))
        return
    due = f", due {moment(due_at)}" if due_at > now else ""
    queued = f"run {run.id} of {job.name} is queued{due}"
    say(queued if found.new else f"run {run.id} of {job.name} has that key already: it is {queued_word(run)}")
    if not found.served:
        STDERR.print("no daemon is running: start one with `orchestrator serve`", style="yellow")


def _moment(text: str, now: float, option: str) -> float:
    local = datetime.now().astimezone().tzinfo or UTC
    try:
        return max(now, moment_at(text, now, local))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
