"""orchestrator run: plan, run to completion, deliver, report."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.attended import attended_run
from orchestrator.cli.command import Missing, print_json, reported, with_app
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import AsJson, Canary, JobFile, Limit, Overrides, Overwrite, Quiet, Reuse
from orchestrator.cli.show import report_lines
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.answer import by_name
from orchestrator.domain.exit_code import ExitCode
from orchestrator.engine.run.run_request import RunRequest, request_from
from orchestrator.engine.run.run_result import RunResult

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.engine.run.session import SessionCost


def run(
    context: typer.Context,
    jobfile: JobFile,
    limit: Limit = None,
    reuse: Reuse = None,
    canary: Canary = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a job to completion and deliver the results. After any interruption, run it again to continue.

    With --canary, the run stops after the first N items if an estimate says that it would cost more than its max_cost.
    """
    with reported(json=json):
        request = request_from(jobfile, limit=limit, overrides=overrides or (), overwrite=overwrite, reuse=reuse or ())
    request = replace(request, canary=canary)
    execute(context, request, json=json, quiet=quiet, missing=Missing.CREATE)


def execute(
    context: typer.Context, request: RunRequest, *, json: bool, quiet: bool, missing: Missing = Missing.REFUSE
) -> None:
    """Run a job, show progress and report, and end the process with the documented exit code."""
    report = with_app(context, partial(_run, context.obj, request, quiet=quiet), json=json, missing=missing)
    code = ExitCode.DISCARDED if report.counts.discarded else ExitCode.COMPLETED
    if json:
        print_json(_as_json(report, code))
    if not quiet or code is not ExitCode.COMPLETED:
        report_lines(report)
    raise typer.Exit(code)


async def _run(options: Globals, request: RunRequest, app: App, *, quiet: bool) -> RunResult:
    report = await attended_run(options, request, app, partial(app.run, request), quiet=quiet)
    if not quiet:
        STDERR.print("; ".join([f"plan: {report.plan}", *report.hints]))
    return report


def _as_json(report: RunResult, code: ExitCode) -> dict[str, object]:
    return {
        "run": report.run.id,
        "job": report.run.job,
        "state": report.run.state,
        "exit_code": code,
        "plan": asdict(report.plan),
        "hints": list(report.hints),
        "counts": asdict(report.counts),
        "requests": report.asked,
        "seconds": round(report.seconds, 3),
        "asking": round(report.asking, 3),
        **asdict(report.tokens),
        "noted": by_name(report.noted),
        "traffic": asdict(report.traffic),
        "shared": report.shared,
        "awake": [_stay_as_json(stay, report.settled) for stay in report.session_costs],
        "charges": {name: asdict(charge) for name, charge in report.charges.items()},
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
        "billed": None if stay.billed is None else asdict(stay.billed),
        "proof": stay.proof,
    }
