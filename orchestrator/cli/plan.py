"""orchestrator plan: what a run would do, without calling anything."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer
from anyio import to_thread

from orchestrator.cli.command import Missing, print_json, with_store
from orchestrator.cli.run import AsJson, JobFile, Limit, Overrides, Overwrite, Reuse, all_overrides, load
from orchestrator.cli.terminal import say
from orchestrator.engine.files import check_files
from orchestrator.engine.ingest import Snapshot
from orchestrator.engine.ingest import plan as make_plan
from orchestrator.engine.progress import Progress
from orchestrator.engine.reuse import Elsewhere
from orchestrator.job import fingerprint_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.run import Plan
    from orchestrator.job import Job
    from orchestrator.store import Store


def plan(
    context: typer.Context,
    jobfile: JobFile,
    limit: Limit = None,
    reuse: Reuse = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Say what a run would do now: how many items are new, edited, reused, to retry. Nothing is called."""
    job = load(jobfile, all_overrides(overrides, overwrite=overwrite), json=json)
    act = partial(_plan, job, jobfile, limit, reuse or [])
    found, elsewhere, parses_again = with_store(context, act, json=json, missing=Missing.LEND)
    if json:
        hint = {"answered_by": elsewhere.found} if elsewhere.found else {}
        print_json({"job": job.name, "total": found.total, "to_ask": found.to_ask} | asdict(found) | hint)
    else:
        say("; ".join([str(found), *elsewhere.hints]))
        if parses_again:
            say("parse has changed: the answers that are there are parsed again, discarded ones too")


async def _plan(
    job: Job, jobfile: Path, limit: int | None, reuse: list[str], store: Store
) -> tuple[Plan, Elsewhere, bool]:
    """The plan, how many of the rows to ask other jobs have answered, and whether outputs are made again."""
    await to_thread.run_sync(check_files, job, store.database.path, str(jobfile))
    others = await store.reuse.named(reuse, job.name)
    identity = await to_thread.run_sync(job.identity)
    alike = await store.reuse.asked_alike(job.name, identity)
    jobs = {number: name for number, name in alike.items() if number not in others}
    job_id = await store.runs.job_id(job.name)
    parse = await to_thread.run_sync(fingerprint_of, job.parse)
    parses_again = job_id is not None and await store.runs.parse_of(job_id) != parse
    elsewhere = Elsewhere(store, job_id, jobs)
    found = await make_plan(Snapshot(job, identity, limit, reuse=others), store, Progress(), elsewhere.look)
    return found, elsewhere, parses_again
