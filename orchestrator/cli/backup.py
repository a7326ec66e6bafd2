"""orchestrator backup: copy the ledger, even while it is in use."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import from_thread, to_thread

from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.phrases import count, megabytes
from orchestrator.store.copies import back_up
from orchestrator.store.database import ledger_path

if TYPE_CHECKING:
    from orchestrator.store.copies import Copied

File = Annotated[Path, typer.Argument(help="Where to write the copy.", metavar="FILE", dir_okay=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def backup(context: typer.Context, file: File, force: Force = False, json: AsJson = False) -> None:
    """Copy the ledger as it is now, even while it is in use. The copy is checked before it appears.

    The files of batches are copied to FILE.files.
    """
    copied = without_store(context, partial(_back_up, context.obj, file, force=force), json=json)
    if json:
        files = {"files": copied.files} if copied.files else {}
        print_json({"backup": str(copied.path), "bytes": copied.after, **files})
    else:
        of_batches = f"; {count(copied.files, 'file')} of batches in {copied.path}.files" if copied.files else ""
        say(f"{copied.path}: {megabytes(copied.after)}, checked{of_batches}")


async def _back_up(options: Globals, file: Path, *, force: bool) -> Copied:
    def copy() -> Copied:
        ledger = ledger_path(options.settings().ledger)
        return back_up(ledger, file, force=force, pulse=from_thread.check_cancelled)

    return await to_thread.run_sync(copy)
