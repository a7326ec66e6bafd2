"""orchestrator serve: the daemon, a foreground process made for systemd, containers and tmux."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.child import executed, forget_logs
from orchestrator.cli.command import Globals, Missing, with_store
from orchestrator.cli.notify import failure_hooks
from orchestrator.cli.owed_notifications import send_owed_notifications
from orchestrator.cli.signals import received
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.timetable import told
from orchestrator.endpoints import endpoint_from
from orchestrator.engine.schedules import JobFolders, fire_due
from orchestrator.engine.serve import Duty, Service
from orchestrator.engine.serve import serve as serve_queue
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.store.prune import retain_daily
from orchestrator.store.sqlite import describe

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.config import Settings
    from orchestrator.store import Store
    from orchestrator.store.busy_timeout import BusyTimeout

Runs = Annotated[int | None, typer.Option(min=1, help="Runs executed at once at the most.", metavar="N")]
_LOOK = 2.0  # seconds between two looks at the job folders
_FIRE = 1.0  # and at the schedules
_TELL = 2.0  # and at what hooks have not been told
_RETAIN = 3600.0  # and at what is old
_RETAINING = 600.0  # seconds that deleting may take at a time


def serve(context: typer.Context, runs: Runs = None) -> None:
    """Execute queued runs, fire schedules, pay debts, until SIGTERM or Ctrl-C; once more cuts short."""
    with_store(context, partial(_serve, context.obj, runs), missing=Missing.CREATE)


async def _serve(options: Globals, runs: int | None, store: Store) -> None:
    settings = options.settings()
    failure_hooks(settings)  # what is wrong with them is said now, not in the night
    say(f"serving ledger {store.database.path} · {describe()}")
    stop = Stop()
    service = Service(
        execute=partial(executed, store.database.path, say),
        revive=endpoint_from,
        say=say,
        alive=partial(notify, "WATCHDOG=1"),
        runs=runs or settings.serve.runs,
        duties=_duties(settings, store),
    )
    notify("READY=1")
    async with task_group() as group:
        with received() as signals:
            group.start_soon(_listen, signals, stop, store.database.busy_timeout)
            await serve_queue(store, service, stop)
            group.cancel_scope.cancel()
    say("stopped")


def _duties(settings: Settings, store: Store) -> tuple[Duty, ...]:
    folders = JobFolders(settings.serve.jobs)

    async def look(now: float) -> None:
        for line in await folders.look(store, now):
            say(line)

    async def fire(now: float) -> None:
        for line in told(await fire_due(store, now, folders.concern)):
            say(line)

    async def retain(now: float) -> None:
        pruned = await retain_daily(store, settings.retention.seconds, now, _RETAINING)
        if pruned is not None and settings.retention.seconds is not None:
            await to_thread.run_sync(forget_logs, store.database.path, now - settings.retention.seconds)

    async def tell(_now: float) -> None:
        await send_owed_notifications(store, say)

    return (
        Duty("job folders", _LOOK, look),
        Duty("schedules", _FIRE, fire),
        Duty("hooks", _TELL, tell),
        Duty("retention", _RETAIN, retain),
    )


async def _listen(signals: MemoryObjectReceiveStream[int], stop: Stop, busy_timeout: BusyTimeout) -> None:
    async for _ in signals:
        if stop.requested:
            say("cutting short")
            stop.abort()
            busy_timeout.end_in(0)
        else:
            notify("STOPPING=1")
            say("stopping: nothing new is taken, answers in flight come in, endpoints are paused; again to cut short")
            stop.drain()


def say(text: str) -> None:
    """One line with the time; journals and log files take it from stderr, where they can."""
    with suppress(OSError):  # a full disk, a reader that has gone: no reason to end what is going on
        STDERR.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} {text}")


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)); that it does not hear us is said once."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            channel.sendall(state.encode())
    except OSError as error:
        _say_once(f"NOTIFY_SOCKET {address} cannot be told: {error.strerror or error}")


@cache
def _say_once(text: str) -> None:
    say(text)
