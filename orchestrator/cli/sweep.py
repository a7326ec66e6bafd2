"""orchestrator sweep: pay the pauses that dead processes owe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from orchestrator.app import sweep_lost
from orchestrator.cli.command import print_json, with_app, without_store
from orchestrator.cli.run import AsJson, Quiet
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.exit_code import ExitCode
from orchestrator.guard.traces import traces
from orchestrator.store.database import ledger_path
from orchestrator.store.ledger_file import identity

if TYPE_CHECKING:
    from orchestrator.engine.sweep import Swept
    from orchestrator.guard.traces import Trace

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what is owed; call no provider.")]

Lost = Annotated[str | None, typer.Option("--debt", hidden=True, help="A guard's: paid where the ledger is gone.")]


def sweep(
    context: typer.Context, dry_run: DryRun = False, json: AsJson = False, quiet: Quiet = False, debt: Lost = None
) -> None:
    """Pause what dead processes left awake: only what this ledger resumed and nobody uses. For cron and for boot.

    Hooks that nobody has told yet how a run ended are told, too.
    """
    lost = None if debt is None else orjson.loads(debt)
    left = [] if lost is not None else [one for one in traces(_ledger(context)) if not one.at_work]
    if lost is not None and _file_of(context) != lost["file"]:
        found = [_pay_lost(context, lost, json=json)]
    elif left and _file_of(context) is None:
        found = []
    else:
        found = with_app(context, lambda app: app.owed() if dry_run else app.sweep(), json=json)
    found += [] if dry_run else _pay_for_guards(context, left, json=json)
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
    """Which file the ledger is; None where there is none."""
    found = identity(_ledger(context))
    return None if found is None else list(found)


def _pay_lost(context: typer.Context, debt: Mapping[str, Any], *, json: bool) -> Swept:
    return without_store(context, partial(sweep_lost, debt), json=json)


def _pay_for_guards(context: typer.Context, left: Sequence[Trace], *, json: bool) -> list[Swept]:
    """What guards have given up whose ledger is gone; the debts of this one are in it, and have been looked at."""
    paid = []
    for trace in left:
        debt = trace.debt
        lost = debt is not None and debt.get("file") != _file_of(context)
        one = _pay_lost(context, debt, json=json) if debt is not None and lost else None
        paid += [] if one is None else [one]
        if one is None or one.failure is None:
            trace.path.unlink(missing_ok=True)
    return paid
