"""orchestrator submit: put a run into the queue."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from anyio import to_thread

from orchestrator.cli.command import Missing, print_json, with_store
from orchestrator.cli.queue import moment, priority_of
from orchestrator.cli.run import AsJson, JobFile, Limit, Overrides, Overwrite, Reuse, all_overrides, load, reusing
from orchestrator.cli.status import state_word
from orchestrator.cli.terminal import STDERR, say
from orchestrator.domain.deadline import deadline_at
from orchestrator.domain.moment import moment_at
from orchestrator.domain.queue import Submission
from orchestrator.engine.files import check_files
from orchestrator.engine.reaper import reap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.store import Store

At = Annotated[
    str, typer.Option(help="Not before: +2h, 22:00, '22:00 Europe/Paris', '2026-11-22 03:00'.", metavar="TIME")
]
Deadline = Annotated[
    str | None,
    typer.Option(help="When its answers are wanted; of two runs the more urgent one is first.", metavar="TIME"),
]
Priority = Annotated[
    int | None,
    typer.Option(help="Runs of a higher number are taken first; 0 by itself.", metavar="N", parser=priority_of),
]
After = Annotated[list[str] | None, typer.Option(help="Only when that run has succeeded.", metavar="RUN|JOB")]
AfterEnd = Annotated[list[str] | None, typer.Option(help="Only when that run has ended, anyhow.", metavar="RUN|JOB")]
Key = Annotated[
    str | None,
    typer.Option(help="Submitted twice with the same key, it is one run, unless that has failed.", metavar="KEY"),
]


def submit(  # noqa: PLR0913, PLR0917 - each is an option of the command
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
    settings = all_overrides(overrides, overwrite=overwrite)
    job = load(jobfile, settings, json=json)
    about = {
        "jobfile": str(jobfile.absolute()),
        "folder": str(Path.cwd()),  # relative paths in the job file are relative to it
        "overrides": settings,
        "limit": limit,
    } | reusing(reuse)
    now = time.time()
    submission = Submission(
        job.name,
        about,
        sorted(job.endpoint_names),
        due_at=_moment(at, now, "--at"),
        priority=0 if priority is None else priority,
        deadline=_deadline(deadline, job.policy.deadline, now),
        key=key,
        key_hash=_hash(jobfile, about, (at, deadline, priority, after, after_end)),
    )
    wanted = [*((name, False) for name in after or []), *((name, True) for name in after_end or []), *job.waits_for]
    run, new, served = with_store(
        context, partial(_submit, job, submission, wanted, reuse or []), json=json, missing=Missing.CREATE
    )
    if json:
        about_run = {"run": run.id, "job": job.name, "new": new, "state": _state(run)}
        print_json(about_run | {"due_at": submission.due_at, "served": served})
        return
    due = f", due {moment(submission.due_at)}" if submission.due_at > now else ""
    queued = f"run {run.id} of {job.name} is queued{due}"
    say(queued if new else f"run {run.id} of {job.name} has that key already: it is {_state(run)}")
    if not served:
        STDERR.print("no daemon is running: start one with `orchestrator serve`", style="yellow")


def _state(run: Run) -> str:
    return "queued" if run.due_at is not None and run.holder is None else state_word(run)


def _deadline(given: str | None, policy: str | None, now: float) -> float | None:
    if given is not None:
        return _moment(given, now, "--deadline")
    return None if policy is None else deadline_at(policy, now)


def _moment(text: str, now: float, option: str) -> float:
    local = datetime.now().astimezone().tzinfo or UTC
    try:
        return max(now, moment_at(text, now, local))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _hash(jobfile: Path, about: Mapping[str, object], options: Sequence[object]) -> str:
    """Of everything that was submitted: what the same key must stand for."""
    text = orjson.dumps([about, options]) + jobfile.read_bytes()
    return hashlib.sha256(text).hexdigest()


async def _submit(
    job: Job, submission: Submission, wanted: list[tuple[str, bool]], reuse: list[str], store: Store
) -> tuple[Run, bool, bool]:
    await to_thread.run_sync(check_files, job, store.database.path, submission.about.get("jobfile"))
    await reap(store)
    await store.reuse.named(reuse, submission.job)  # so that a misspelt one is refused now
    after = [((await store.runs.find(name)).id, any_end) for name, any_end in wanted]
    run_id, new = await store.queue.submit(replace(submission, after=after))
    return await store.runs.find(str(run_id)), new, await store.queue.served()
