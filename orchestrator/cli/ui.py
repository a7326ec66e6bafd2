"""orchestrator ui: the page over this user's ledger, in the browser, without a daemon."""

from __future__ import annotations

import webbrowser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from anyio import to_thread

from orchestrator.cli.command import with_app
from orchestrator.cli.signals import received
from orchestrator.cli.terminal import STDERR
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.report.markup import tag

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.app import App

Port = Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 is any free one.", metavar="N")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")]


def ui(context: typer.Context, port: Port = 0, browser: Browser = True) -> None:
    """Show runs, costs and endpoints on a page in the browser until Ctrl-C. Executes nothing: that is `serve`."""
    with TemporaryDirectory(prefix="orchestrator-") as folder:
        with_app(context, partial(_ui, port, Path(folder) / "open.html" if browser else None))


async def _ui(port: int, link: Path | None, app: App) -> None:
    from orchestrator.server import listener_of, main_token, serve_http  # it takes a while, and few commands need it

    stop, ledger = Stop(), app.store.database.real_path
    listener = await to_thread.run_sync(partial(listener_of, app, f"127.0.0.1:{port}", named=False))
    url = f"{listener.address.url}/"
    token = await to_thread.run_sync(main_token, ledger)
    async with task_group() as group:
        with received() as signals:
            group.start_soon(_listen, signals, stop)
            if link is not None:
                group.start_soon(_open, link, f"{url}?token={token}")
            await serve_http(app, listener, stop, STDERR.print, executes=False)
            group.cancel_scope.cancel()


async def _listen(signals: MemoryObjectReceiveStream[int], stop: Stop) -> None:
    async for _ in signals:
        if stop.requested:
            stop.abort()
        stop.drain()


async def _open(link: Path, url: str) -> None:
    """Open a page in the browser by a file that leads to it.

    The URL holds the token, and every user of this machine can read the arguments of the browser's command. Only the
    owner can read the file. It stays, since the browser may take a while.
    """
    refresh = tag("meta", http_equiv="refresh", content=f"0; url={url}")

    def browse() -> None:
        link.write_text(tag("html", tag("head", refresh, tag("title", "orchestrator"))), encoding="utf-8")
        webbrowser.open(link.as_uri())

    await to_thread.run_sync(browse, abandon_on_cancel=True)
