"""orchestrator sweep: pay the pauses that dead processes owe."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from orchestrator.cli.command import ExitCode, print_json, with_store, without_store
from orchestrator.cli.run import AsJson, Quiet
from orchestrator.cli.terminal import STDERR
from orchestrator.cli.untold import tell_owed
from orchestrator.endpoints import endpoint_from
from orchestrator.engine import sweep as engine
from orchestrator.engine.reaper import registered
from orchestrator.store.database import ledger_path
from orchestrator.store.ledger_file import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.sweep import Swept
    from orchestrator.store import Store

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what is owed; call no provider.")]

Lost = Annotated[str | None, typer.Option("--debt", hidden=True, help="A guard's: paid where the ledger is gone.")]


def sweep(
    context: typer.Context, dry_run: DryRun = False, json: AsJson = False, quiet: Quiet = False, debt: Lost = None
) -> None:
    """Pause what dead processes left awake: only what this ledger resumed and nobody uses. For cron and for boot.

    Hooks that nobody has told yet how a run ended are told, too.
    """
    lost = None if debt is None else orjson.loads(debt)
    if lost is not None and _file_of(context) != lost["file"]:
        found = [without_store(context, partial(engine.pay_lost, lost, endpoint_from), json=json)]
    else:
        found = with_store(context, _owed if dry_run else _pay, json=json)
    _say(found, json=json, quiet=quiet)
    if lost is None and not dry_run:
        with_store(context, partial(tell_owed, say=STDERR.print))
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


def _file_of(context: typer.Context) -> list[int] | None:
    """Which file the ledger is; None where there is none."""
    found = identity(ledger_path(context.obj.settings().ledger))
    return None if found is None else list(found)


async def _owed(store: Store) -> list[Swept]:
    return [engine.Swept(debt.endpoint, debt.opened_at) for debt in await engine.owed(store)]


async def _pay(store: Store) -> list[Swept]:
    async with registered(store) as process_id:
        return await engine.sweep(store, endpoint_from, process_id)
