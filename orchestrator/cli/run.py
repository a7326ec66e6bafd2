"""orchestrator run: plan, run to the end, deliver, report."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import ExitCode, Globals, Missing, fail, print_json, with_store
from orchestrator.cli.owed_notifications import send_owed_notifications
from orchestrator.cli.show import report_lines, shown
from orchestrator.cli.signals import heeding_signals
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.answer import by_name
from orchestrator.domain.budget import Budget
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.endpoints import endpoint_from
from orchestrator.engine.execution import RunRequest, Safety
from orchestrator.engine.progress import Progress
from orchestrator.engine.reaper import reap
from orchestrator.engine.run import RunResult, run_job
from orchestrator.guard import guarded
from orchestrator.job import load_job
from orchestrator.store.prune import retain_daily
from orchestrator.store.sqlite import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.queue import Claim
    from orchestrator.domain.run import Run
    from orchestrator.engine.session import SessionCost
    from orchestrator.job import Job
    from orchestrator.store import Store

JobFile = Annotated[Path, typer.Argument(help="A Python file that defines one Job.", metavar="JOBFILE")]
Limit = Annotated[int | None, typer.Option(min=1, max=2**32, help="Only the first N rows of the source.", metavar="N")]
Reuse = Annotated[
    list[str] | None,
    typer.Option("--reuse", help="Take over what another job has answered; may be given again.", metavar="JOB"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting of the job, e.g. policy.concurrency=8.", metavar="KEY=VALUE"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that no delivery of this job has written.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless something is wrong.")]

_RETAINING = 20.0  # seconds at the most that old runs are deleted for, after the run; the next one goes on with it


def run(
    context: typer.Context,
    jobfile: JobFile,
    limit: Limit = None,
    reuse: Reuse = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a job to its end and deliver. Run it again after any kind of stop: it goes on."""
    settings = all_overrides(overrides, overwrite=overwrite)
    job = load(jobfile, settings, json=json)
    about = {"jobfile": str(jobfile.absolute()), "folder": str(Path.cwd()), "overrides": settings} | reusing(reuse)
    execute(context, RunRequest(job, limit, about, reuse=reuse or ()), json=json, quiet=quiet, missing=Missing.CREATE)


def reusing(jobs: list[str] | None) -> dict[str, object]:
    """Whose answers are taken over, as it is kept with the run; nothing where nobody's are."""
    return {"reuse": jobs} if jobs else {}


def all_overrides(overrides: list[str] | None, *, overwrite: bool) -> list[str]:
    """What changes the job, as it is kept with the run."""
    return [*(overrides or []), *(["sink.overwrite=True"] if overwrite else [])]


def load(jobfile: Path, overrides: Sequence[str], *, json: bool = False) -> Job:
    """The job of a file, or one line and exit code 2."""
    try:
        return load_job(jobfile, overrides)
    except OrchestratorError as error:
        fail(error, json=json)


def request_of(run: Run, claim: Claim | None = None, *, overwrite: bool = False) -> RunRequest:
    """What is needed to execute a run of the ledger (again), in its folder, which becomes the current one.

    `overwrite`: as the option says, this time.
    `UsageError` where the folder is gone, or the job file cannot be used.
    """
    about = run.spec.about
    jobfile, overrides, limit, folder = (about.get(name) for name in ("jobfile", "overrides", "limit", "folder"))
    if not jobfile:
        raise UsageError(f"run {run.id} was not made from a job file; run its job again instead")
    if folder is not None:
        try:
            os.chdir(str(folder))
        except OSError as error:
            raise UsageError(
                f"the folder {folder} in which run {run.id} was begun is gone: {error.strerror}"
            ) from error
    given = overrides if isinstance(overrides, list) else []
    job = load_job(Path(str(jobfile)), all_overrides(given, overwrite=overwrite))
    if folder is None and about.get("output") != str(job.sink.path):
        raise UsageError(
            f"run {run.id} does not say in which folder it was begun, and from here its output would be "
            f"{job.sink.path}, not {about.get('output')}: go to that folder first"
        )
    kept = {name: about[name] for name in ("jobfile", "overrides", "folder", "reuse") if name in about}
    reuse = about.get("reuse")
    jobs = reuse if isinstance(reuse, list) else ()
    return RunRequest(job, limit if isinstance(limit, int) else None, kept, claim, reuse=jobs)


def execute(
    context: typer.Context, request: RunRequest, *, json: bool, quiet: bool, missing: Missing = Missing.REFUSE
) -> None:
    """Run, show, report, and end the process with the documented exit code."""
    report = with_store(context, partial(_run, context.obj, request, quiet=quiet), json=json, missing=missing)
    code = ExitCode.DISCARDED if report.counts.discarded else ExitCode.COMPLETED
    if json:
        print_json(_as_json(report, code))
    if not quiet or code is not ExitCode.COMPLETED:
        report_lines(report)
    raise typer.Exit(code)


async def _run(options: Globals, request: RunRequest, store: Store, *, quiet: bool) -> RunResult:
    progress = Progress()
    if not quiet:
        STDERR.print(f"ledger {options.settings().ledger} · {describe()}", style="dim")
    day = options.settings().budget
    budget = Budget(day.max_cost_per_day, day.max_awake_per_day)
    safety = Safety(partial(guarded, str(store.database.path)), endpoint_from, budget)
    if request.claim is None:  # else the daemon does
        await reap(store)
        await send_owed_notifications(store, STDERR.print, but=request.job.name)
    try:
        async with shown(progress, quiet=quiet):
            report = await heeding_signals(
                lambda stop: run_job(request, store, progress, stop, safety),
                progress,
                store.database.busy_timeout,
                request.job.policy.grace,
            )
    finally:
        for proof in [] if quiet else progress.proofs:
            STDERR.print(proof)
        for trouble in progress.troubles:
            STDERR.print(trouble, style="yellow")
    if not quiet:
        STDERR.print("; ".join([f"plan: {report.plan}", *progress.hints]))
    with suppress(OrchestratorError):  # everything is delivered; the next one tries again
        await retain_daily(store, options.settings().retention.seconds, time.time(), _RETAINING)
    return report


def _as_json(report: RunResult, code: ExitCode) -> dict[str, object]:
    return {
        "run": report.run.id,
        "job": report.run.job,
        "state": report.run.state,
        "exit_code": code,
        "plan": asdict(report.plan),
        "counts": asdict(report.counts),
        "requests": report.asked,
        "seconds": round(report.seconds, 3),
        "asking": round(report.asking, 3),
        **asdict(report.tokens),
        "noted": by_name(report.noted),
        "traffic": asdict(report.traffic),
        "shared": report.shared,
        "awake": [_stay_as_json(stay, report.settled) for stay in report.session_costs],
        "out": dict(report.out),
        "swept": [asdict(swept) for swept in report.swept],
        "output": report.run.output,
        "failures": [asdict(cause) for cause in report.causes],
        "manifest": report.manifest,
    }


def _stay_as_json(stay: SessionCost, settled: int) -> dict[str, object]:
    cost = None if stay.cost is None else round(stay.cost, 6)
    return {
        "endpoint": stay.endpoint,
        "seconds": asdict(stay.spent) | {"all": stay.spent.seconds},
        "price_per_hour": stay.price_per_hour,
        "cost": cost,
        "cost_per_1000": None if cost is None or not settled else cost / settled * 1000,
        "proof": stay.proof,
    }
