"""orchestrator plan: what a run would do, without calling anything."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer
from anyio import to_thread

from orchestrator.cli.command import print_json, with_store
from orchestrator.cli.run import AsJson, JobFile, Limit, Overrides, Overwrite, all_overrides, load
from orchestrator.engine.files import check_files
from orchestrator.engine.ingest import Snapshot
from orchestrator.engine.ingest import plan as make_plan
from orchestrator.engine.progress import Progress
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
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Say what a run would do now: how many items are new, edited, reused, to retry. Nothing is called."""
    job = load(jobfile, all_overrides(overrides, overwrite=overwrite), json=json)
    found, parses_again = with_store(context, partial(_plan, job, jobfile, limit), json=json)
    if json:
        print_json({"job": job.name, "total": found.total, "to_ask": found.to_ask} | asdict(found))
    else:
        typer.echo(str(found))
        if parses_again:
            typer.echo("parse has changed: the answers that are there are parsed again, discarded ones too")


async def _plan(job: Job, jobfile: Path, limit: int | None, store: Store) -> tuple[Plan, bool]:
    """What a run would do, and whether it would make the outputs again."""
    await to_thread.run_sync(check_files, job, store.database.path, str(jobfile))
    identity = await to_thread.run_sync(job.identity)
    parse = await to_thread.run_sync(fingerprint_of, job.parse)
    job_id = await store.runs.job_id(job.name)
    parses_again = job_id is not None and await store.runs.parse_of(job_id) != parse
    return await make_plan(Snapshot(job, identity, limit), store, Progress()), parses_again
