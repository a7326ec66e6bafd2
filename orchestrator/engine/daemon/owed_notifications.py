"""Runs whose hooks were not told how they ended, as their process died over that, or never knew them."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.notification import Event, NotificationResult
from orchestrator.engine.daemon.loading import LOADING
from orchestrator.engine.run.notifier import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.store import Store

_LIMIT = LOADING + LONGEST + 30.0  # seconds after which a process that tells is ended


async def send_owed_notifications(store: Store, say: Callable[[str], None], but: str | None = None) -> None:
    """Have told how runs ended of which nobody was told; not those of job `but`, whose next run does that itself.

    Each by a process of its own, since a job file is loaded for it, which may hang or end that.
    """
    for run_id, _, id_ in await store.notifications.owed(but=but):
        for options in ([], ["--without-job"]):
            ended = await _by_process(store, say, run_id, options)
            if ended == ExitCode.USAGE or not await _is_owed(store, run_id):  # the ledger's trouble: another time
                break
        else:
            why = NotificationResult("hooks", Event.FAILED, time.time(), ok=False, said="no process could tell them")
            await store.notifications.give_up(run_id, id_, why)


async def _is_owed(store: Store, run_id: int) -> bool:
    return any(owed == run_id for owed, _, _ in await store.notifications.owed())


async def _by_process(store: Store, say: Callable[[str], None], run_id: int, options: list[str]) -> int | None:
    """How the process ended that tells this; None where it took too long. What it says is said."""
    command = [sys.executable, "-P", "-m", "orchestrator", "--db", str(store.database.path), "notify", str(run_id)]
    with anyio.move_on_after(_LIMIT):
        done = await anyio.run_process([*command, *options], stdin=subprocess.DEVNULL, check=False)
        for line in done.stderr.decode(errors="replace").splitlines():
            say(line)
        return done.returncode
    return None
