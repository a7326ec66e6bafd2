"""orchestrator sweep: pay the pauses that dead processes owe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from anyio import to_thread

from orchestrator.app import sweep_ledger
from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import AsJson, Quiet
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.exit_code import ExitCode

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
    options: Globals = context.obj
    known_debt = None if debt is None else orjson.loads(debt)

    async def act() -> list[Swept]:
        settings = await to_thread.run_sync(options.settings)
        return await sweep_ledger(settings, dry_run=dry_run, known_debt=known_debt, say=STDERR.print)

    found = without_store(context, act, json=json)
    _say(found, json=json, quiet=quiet)
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
