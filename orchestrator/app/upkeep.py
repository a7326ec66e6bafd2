"""Upkeep of a ledger that may be missing, in use or damaged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anyio import from_thread, to_thread

from orchestrator.app.application import do_nothing, open_app
from orchestrator.app.lost_debts import is_lost, lost_debts, without_ledger
from orchestrator.domain.errors import LedgerError, LedgerLocked, OrchestratorError, UsageError
from orchestrator.endpoints import endpoint_from
from orchestrator.engine.awake.reaper import reap
from orchestrator.engine.awake.sweep import Swept, pay_lost
from orchestrator.store import copies
from orchestrator.store.database import CORRUPT, ledger_path
from orchestrator.store.health import is_damaged
from orchestrator.store.ledger_file import identity
from orchestrator.store.lock_holders import lock_holders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.store.copies import Copied

_LOOKED_AT = 30.0  # seconds for examining the ledger after an unexpected failure


async def sweep_ledger(
    settings: Settings,
    *,
    dry_run: bool = False,
    known_debt: Mapping[str, object] | None = None,
    say: Callable[[str], None] = do_nothing,
) -> list[Swept]:
    """Do what `App.sweep` does, or with `dry_run`, `App.owed`, even if the ledger is gone.

    If guards have left debts beside a missing ledger, a new one is made for them. `known_debt` is that of the guard
    that calls this, and is paid without a ledger if its own is gone. Raises `UsageError` if there is nothing to pay.
    """
    ledger = await to_thread.run_sync(ledger_path, settings.ledger)
    if known_debt is not None and await to_thread.run_sync(is_lost, known_debt, ledger):
        return [await pay_lost(known_debt, endpoint_from)]
    lost = await to_thread.run_sync(lost_debts, ledger)
    if await to_thread.run_sync(identity, ledger) is None:
        if not lost:
            raise UsageError(await to_thread.run_sync(without_ledger, ledger))
        if dry_run:
            return lost
    async with open_app(settings, create=bool(lost), say=say) as app:
        return await (app.owed() if dry_run else app.sweep(notify=known_debt is None))


async def compact(settings: Settings) -> Copied:
    """Rewrite the ledger without the space left by deleted rows. Raises `LedgerError` while it is in use."""
    path = await to_thread.run_sync(ledger_path, settings.ledger)
    if await to_thread.run_sync(path.is_file):  # otherwise `copies.compact` reports it, and no ledger must be created
        async with open_app(settings) as app:
            await reap(app.store)
            living = await app.store.runs.living()
        if living:
            users = ", ".join(map(str, living))
            raise LedgerError(f"ledger {path} is in use by {users}; stop it, then compact")
    try:
        return await to_thread.run_sync(partial(copies.compact, path, pulse=from_thread.check_cancelled))
    except LedgerError as error:
        for user in await to_thread.run_sync(copies.users, path):
            error.add_note(f"it is opened by {user}")
        raise


def explained(error: Exception, ledger: Path) -> OrchestratorError | None:
    """Return an expected failure, with who keeps the ledger locked if that is why. None if it was not expected.

    An unexpected failure of a program whose ledger is damaged is a failure of the ledger. Looks at the disk.
    """
    if isinstance(error, LedgerLocked):
        error.args = ("; ".join([str(error), *(f"it is held by {holder}" for holder in lock_holders(ledger))]),)
    if isinstance(error, OrchestratorError):
        return error
    return LedgerError(f"ledger {ledger}: {CORRUPT}") if is_damaged(ledger, _LOOKED_AT) else None
