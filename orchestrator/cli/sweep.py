"""orchestrator sweep: pay the pauses that dead processes owe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from orchestrator.app import sweep_for_guards, sweep_lost
from orchestrator.cli.command import print_json, with_app, without_store
from orchestrator.cli.run import AsJson, Quiet
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.exit_code import ExitCode
from orchestrator.guard.traces import traces
from orchestrator.store.database import ledger_path
from orchestrator.store.ledger_file import identity

if TYPE_CHECKING:
    from orchestrator.engine.awake.sweep import Swept

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what is owed; call no provider.")]

Lost = Annotated[
    str | None, typer.Option("--debt", hidden=True, help="A debt in JSON, from a guard whose ledger is gone.")
]


def sweep(
    context: typer.Context, dry_run: DryRun = False, json: AsJson = False, quiet: Quiet = False, debt: Lost = None
) -> None:
    """Pause endpoints that dead processes left awake. Run it from cron and at boot.

    Only endpoints that this ledger resumed, and that are not in use, are paused. Notifications that are still owed
    to hooks are sent as well.
    """
    lost = None if debt is None else orjson.loads(debt)
    left = [] if lost is not None else [one for one in traces(_ledger(context)) if not one.at_work]
    if lost is not None and _file_of(context) != lost["file"]:
        found = [without_store(context, partial(sweep_lost, lost), json=json)]
    elif left and _file_of(context) is None:
        found = []
    else:
        found = with_app(context, lambda app: app.owed() if dry_run else app.sweep(), json=json)
    if left and not dry_run:
        found += without_store(context, partial(sweep_for_guards, _ledger(context), left), json=json)
    _say(found, json=json, quiet=quiet)
    if lost is None and not dry_run and _file_of(context) is not None:
        with_app(context, lambda app: app.send_owed_notifications(), say=STDERR.print)
    raise typer.Exit(ExitCode.FAILED if any(one.failure for one in found) else ExitCode.COMPLETED)


def _say(found: Sequence[Swept], *, json: bool, quiet: bool) -> None:
    if json:
        print_json({"swept": [asdict(one) for one in found]})
    for one in found:
        since = datetime.fromtimestamp(one.since, UTC)
        if one.failure is not None:
            STDERR.print(f"endpoint {one.endpoint} is still owed a pause: {one.failure}")
        elif one.proof is None:
            STDERR.print(f"endpoint {one.endpoint} is owed a pause; it was opened at {since:%Y-%m-%d %H:%M:%SZ}")
        elif not quiet:
            STDERR.print(one.proof)
    if not found and not quiet:
        STDERR.print("nothing is owed")


def _ledger(context: typer.Context) -> Path:
    return ledger_path(context.obj.settings().ledger)


def _file_of(context: typer.Context) -> list[int] | None:
    """Return the identity of the ledger's file; None if there is none."""
    found = identity(_ledger(context))
    return None if found is None else list(found)
