"""orchestrator serve: the daemon, a foreground process for systemd, containers and tmux."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import Missing, with_app
from orchestrator.cli.signals import received
from orchestrator.cli.terminal import STDERR
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.store.sqlite import describe

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.app import App
    from orchestrator.store.busy_timeout import BusyTimeout

Runs = Annotated[int | None, typer.Option(min=1, help="At most this many runs at once.", metavar="N")]
Http = Annotated[
    str | None,
    typer.Option(help="Also serve OpenAI's Batch API, the page and metrics here.", metavar="HOST:PORT"),
]


def serve(context: typer.Context, runs: Runs = None, http: Http = None) -> None:
    """Execute queued runs, fire schedules and pay debts until SIGTERM or Ctrl-C. A second one aborts at once."""
    with_app(context, partial(_serve, runs, http), missing=Missing.CREATE, say=say)


async def _serve(runs: int | None, http: str | None, app: App) -> None:
    from orchestrator.server import listener_of, serve_http  # it takes a while, and no other command needs it

    database, stop, http_stop = app.store.database, Stop(), Stop()
    address = app.settings.server.http if http is None else http
    listener = await to_thread.run_sync(listener_of, app, address) if address else None

    def ready() -> None:
        say(f"serving ledger {database.path} · {describe()}")
        notify("READY=1")

    async with task_group() as group:
        with received() as signals:
            group.start_soon(_listen, signals, stop, http_stop, database.busy_timeout)
            async with task_group() as serving:
                if listener is not None:  # it goes on while runs stop, so that one can watch them
                    serving.start_soon(partial(serve_http, app, listener, http_stop, say, executes=True))
                await app.serve(stop, runs=runs, ready=ready, alive=partial(notify, "WATCHDOG=1"))
                http_stop.drain()
            group.cancel_scope.cancel()
    say("stopped")


async def _listen(
    signals: MemoryObjectReceiveStream[int], stop: Stop, http_stop: Stop, busy_timeout: BusyTimeout
) -> None:
    async for _ in signals:
        if stop.requested:
            say("cutting short")
            stop.abort()
            http_stop.abort()
            busy_timeout.end_in(0)
        else:
            notify("STOPPING=1")
            say("stopping: nothing new is taken, answers in flight come in, endpoints are paused; again to cut short")
            stop.drain()


def say(text: str) -> None:
    """Print one line with the time to stderr, for journals and log files."""
    with suppress(OSError):  # a full disk, or a reader that has gone, must not stop the daemon
        STDERR.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} {text}")


def notify(state: str) -> None:
    """Notify systemd if it asked for that (sd_notify(3)). A failure is reported once."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            channel.sendall(state.encode())
    except OSError as error:
        _say_once(f"cannot write to NOTIFY_SOCKET {address}: {error.strerror or error}")


@cache
def _say_once(text: str) -> None:
    say(text)
