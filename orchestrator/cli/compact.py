"""orchestrator compact: the ledger's file as small as its content, while nobody uses it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer
from anyio import from_thread, to_thread

from orchestrator.cli.backup import megabytes
from orchestrator.cli.command import Globals, print_json, without_store
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import LedgerError
from orchestrator.engine.reaper import reap
from orchestrator.store import Store
from orchestrator.store.copies import compact as compact_ledger
from orchestrator.store.copies import users
from orchestrator.store.database import ledger_path

if TYPE_CHECKING:
    from orchestrator.store.copies import Copied


def compact(context: typer.Context, json: AsJson = False) -> None:
    """Write the ledger anew without the space that deleted rows left. Refuses while anybody uses it."""
    copied = without_store(context, partial(_compact, context.obj), json=json)
    if json:
        print_json({"ledger": str(copied.path), "bytes_before": copied.before, "bytes": copied.after})
    else:
        say(f"{copied.path}: {megabytes(copied.before)} before, {megabytes(copied.after)} now")


async def _compact(options: Globals) -> Copied:
    settings = await to_thread.run_sync(options.settings)
    path = await to_thread.run_sync(ledger_path, settings.ledger)
    if await to_thread.run_sync(path.is_file):  # else there is one line to say so, and no ledger to be made
        async with Store.open(settings.ledger, busy_seconds=settings.busy_seconds) as store:
            await reap(store)
            living = await store.runs.living()
        if living:
            who = ", ".join(f"process {one.pid} on {one.host.partition('/')[0]}" for one in living)
            raise LedgerError(f"ledger {path} is in use by {who}; stop it, then compact")
    try:
        return await to_thread.run_sync(partial(compact_ledger, path, pulse=from_thread.check_cancelled))
    except LedgerError as error:
        for user in await to_thread.run_sync(users, path):
            error.add_note(f"it is opened by {user}")
        raise
