"""orchestrator doctor: check an installation, and name a remedy for each problem."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.app.doctor import diagnose
from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.phrases import visible

if TYPE_CHECKING:
    from orchestrator.app.doctor.finding import Finding

_WIDTH = 20
_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}

SomeJob = Annotated[Path | None, typer.Argument(help="A job file whose endpoints and output are checked as well.")]
Offline = Annotated[bool, typer.Option("--offline", help="Contact no endpoint and no provider.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds for checking the ledger's pages.", metavar="SECONDS")]


def doctor(
    context: typer.Context,
    jobfile: SomeJob = None,
    offline: Offline = False,
    patience: Patience = 60.0,
    json: AsJson = False,
) -> None:
    """Check the ledger, this machine and the endpoints, and show each problem with its remedy. Changes nothing."""
    options: Globals = context.obj

    async def act() -> list[Finding]:
        return await diagnose(await to_thread.run_sync(options.settings), jobfile, patience, offline=offline)

    found = without_store(context, act, json=json)
    well = all(finding.verdict != "fail" for finding in found)
    if json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            _show(finding)
    raise typer.Exit(ExitCode.COMPLETED if well else ExitCode.FAILED)


def _show(finding: Finding) -> None:
    mark = typer.style(f"{finding.verdict:<5}", fg=_COLOURS[finding.verdict])
    typer.echo(f"{mark} {visible(f'{finding.name:<{_WIDTH}} {finding.seen}')}".rstrip())
    if finding.verdict != "ok" and finding.remedy:
        say(f"{'':<5} {'':<{_WIDTH}} -> {finding.remedy}")
