"""A server to ask: as a real process with a ledger (`http_server`), or in this process for quick tests (`http`)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
import pytest_asyncio
from aiohttp import ClientSession, CookieJar
from anyio import to_thread

from orchestrator.app import open_app
from orchestrator.config import Settings
from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group
from orchestrator.server import listener_of, serve_http
from orchestrator.server.tokens import VARIABLE
from orchestrator.store import Store
from tests.ledgers import new_ledger
from tests.past import a_bad_night, clock_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from playwright.async_api import Browser

    from orchestrator.app import App
    from tests.commands import Running, Workplace

TOKEN = "token-of-the-tests"


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A running `orchestrator serve --http`, and the token of its admin."""

    url: str
    process: Running
    token: str = TOKEN

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture
def start_server(workplace: Workplace) -> Callable[..., AbstractContextManager[HttpServer]]:
    """Return a function that starts a server on the workplace's ledger: `with start_server(config="...") as server`.

    `config` is the text of config.toml; `command` the arguments of the command.
    """

    @contextmanager
    def start(
        config: str = "", command: tuple[str, ...] = ("serve", "--http", "127.0.0.1:0"), **env: str
    ) -> Iterator[HttpServer]:
        file = workplace.folder / "config.toml"
        file.write_text(config)
        with workplace.start("--config", file, *command, env={VARIABLE: TOKEN, **env}) as running:
            yield HttpServer(_announced(running), running)

    return start


@pytest.fixture
def http_server(start_server: Callable[..., AbstractContextManager[HttpServer]]) -> Iterator[HttpServer]:
    with start_server() as server:
        yield server


@dataclass(frozen=True, slots=True)
class Inside:
    """A server in this process. `client` sends the admin's token; `anybody` sends none."""

    app: App
    url: str
    client: ClientSession
    anybody: ClientSession
    stop: Stop
    said: list[str]


@pytest.fixture
def serve_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Inside]]:
    """Return a function that serves in this process: `async with serve_inside(settings, executes=True) as http`."""

    @asynccontextmanager
    async def serve(
        settings: Settings | None = None, *, executes: bool = True, place: str = "127.0.0.1:0"
    ) -> AsyncIterator[Inside]:
        monkeypatch.setenv(VARIABLE, TOKEN)
        ledger, said, stop = tmp_path / "ledger.db", list[str](), Stop()
        if not ledger.exists():
            await to_thread.run_sync(new_ledger, ledger)
        settings = replace(settings or Settings(), db=str(ledger))
        async with open_app(settings) as app, task_group() as tasks:
            listener = await to_thread.run_sync(listener_of, app, place)
            tasks.start_soon(partial(serve_http, app, listener, stop, said.append, executes=executes))
            url = listener.address.url
            async with (
                ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as client,
                ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as anybody,  # cookies also from an IP address
            ):
                yield Inside(app, url, client, anybody, stop, said)
            stop.abort()

    return serve


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser once. Each test has a context of its own in it, which shares nothing with others."""
    from tests.server.browsing import browser

    async with browser() as started:
        yield started


@pytest.fixture(scope="session")
def ledger_of_a_bad_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the ledger once: it takes seconds."""
    path = tmp_path_factory.mktemp("night") / "ledger.db"

    async def write() -> None:
        async with Store.open(str(path)) as store:
            with clock_at(time.time()) as clock:
                await a_bad_night(store, clock)

    anyio.run(write)
    return path


@pytest.fixture
async def http(serve_inside: Callable[..., AbstractAsyncContextManager[Inside]]) -> AsyncIterator[Inside]:
    """Serve in a task of its own: a fixture begins and ends in different ones, which a task group does not allow."""
    serving: asyncio.Future[Inside] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve() -> None:
        try:
            async with serve_inside() as inside:
                serving.set_result(inside)
                await over.wait()
        except Exception as error:
            if serving.done():
                raise
            serving.set_exception(error)

    task = asyncio.create_task(serve())
    yield await serving
    over.set()
    await task


def _announced(running: Running) -> str:
    """Return the URL that the server says it listens on."""
    assert running.process.stderr is not None
    for line in running.process.stderr:
        _, found, rest = line.partition("listening on ")
        if found:
            return rest.split()[0]
    raise AssertionError("the server ended before it listened")
