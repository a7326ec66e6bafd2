"""Notifications still owed, because a run's process died before it sent them or could not load the hooks."""

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
    from collections.abc import Callable, Sequence

    from orchestrator.store import Store

_LIMIT = LOADING + LONGEST + 30.0  # seconds after which a notifying process is ended


async def send_owed_notifications(
    store: Store, say: Callable[[str], None], settings: Sequence[str], but: str | None = None
) -> None:
    """Send the notifications that ended runs still owe, except those of job `but`, whose next run sends them itself.

    Each is sent by its own process, since that loads a job file, which may hang or end the process. `settings`: the
    options with which it reads the caller's settings.
    """
    for run_id, _, id_ in await store.notifications.owed(but=but):
        for options in ([], ["--without-job"]):
            ended = await _by_process(store, say, settings, [str(run_id), *options])
            if ended == ExitCode.USAGE or not await _is_owed(store, run_id):  # on a ledger error, try again later
                break
        else:
            reason = "no process could notify them"
            why = NotificationResult("hooks", Event.FAILED, time.time(), ok=False, said=reason)
            await store.notifications.give_up(run_id, id_, why)


async def _is_owed(store: Store, run_id: int) -> bool:
    return any(owed == run_id for owed, _, _ in await store.notifications.owed())


async def _by_process(
    store: Store, say: Callable[[str], None], settings: Sequence[str], arguments: list[str]
) -> int | None:
    """Return the exit code of the notifying process; None if it took too long. Its error output is passed on."""
    command = [sys.executable, "-P", "-m", "orchestrator", *settings, "--db", str(store.database.path), "notify"]
    with anyio.move_on_after(_LIMIT):
        done = await anyio.run_process([*command, *arguments], stdin=subprocess.DEVNULL, check=False)
        for line in done.stderr.decode(errors="replace").splitlines():
            say(line)
        return done.returncode
    return None
