"""What holds for every route, whoever adds it: nobody asks without a token, and a GET changes nothing."""

from __future__ import annotations

import re
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from anyio import to_thread

from orchestrator.config import Settings, settings_from
from orchestrator.domain.errors import FailureKind
from orchestrator.server import application
from orchestrator.store.sqlite import DRIVER
from tests.past import Night, clock_at, live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.server.conftest import Inside

NO_MARKUP = {
    "application/json",
    "text/plain",
    "text/css",
    "text/javascript",
    "image/svg+xml",
    "application/octet-stream",
}
OPEN = {"/healthz", "/sign-in", "/sign-in.css"}
SAFE = {"GET", "HEAD"}
TOKENS = {"ann": ("run", "token-of-a-runner"), "ben": ("read", "token-of-a-reader")}
VALUES = {"run": "1", "item": "i1", "action": "hold", "job": "talk"}  # of placeholders; any other is "x"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[web.Application]:
    """Return a list that will hold the application that is served."""
    build, built = application.build, list[web.Application]()

    def kept(context: Any) -> web.Application:
        built.append(build(context))
        return built[-1]

    monkeypatch.setattr("orchestrator.server.listening.build", kept)
    return built


def routes(built: list[web.Application]) -> Iterator[tuple[str, str]]:
    """Yield the method and an address of every route."""
    for route in built[0].router.routes():
        assert route.resource is not None
        path = re.sub(r"\{(\w+)(:[^}]*)?\}", lambda found: VALUES.get(found[1], "x"), route.resource.canonical)
        yield "POST" if route.method == "*" else route.method, path


async def test_every_route_needs_a_token(built: list[web.Application], http: Inside) -> None:
    found = list(routes(built))
    assert len(found) > 30
    for method, path in found:
        if path in OPEN:
            continue
        async with http.anybody.request(method, path) as response:
            assert (method, path, response.status) == (method, path, 401)
        headers = {"Accept": "text/html"}
        async with http.anybody.request(method, path, headers=headers, allow_redirects=False) as response:
            assert (method, path, response.status) == (method, path, 401)


async def test_no_role_but_admin_changes_what_is_not_its_own(
    built: list[web.Application],
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_inside(with_tokens(monkeypatch)) as http:
        await add_run(http)
        before = await changes(http)
        for method, path in routes(built):
            if method in SAFE or path in OPEN or path == "/sign-out":
                continue
            for role, token in TOKENS.values():
                own = (
                    path.startswith(("/v1/", "/batches/")) and role == "run"
                )  # what it makes itself; nothing of this name is there
                headers = {"Authorization": f"Bearer {token}"}
                async with http.anybody.request(method, path, headers=headers) as response:
                    refused = {400, 404} if own else {403}
                    assert response.status in refused, (role, method, path, await response.text())
        assert await changes(http) == before


async def test_a_run_of_somebody_elses_batch_is_shown_to_nobody_but_admins(
    built: list[web.Application],
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_inside(with_tokens(monkeypatch)) as http:
        await add_run(http)
        await to_thread.run_sync(give_to_carl, http.app.store.database.path)
        for method, path in routes(built):
            if method == "GET" and re.search(r"/runs/1(/|$)", path):
                for _, token in TOKENS.values():
                    headers = {"Authorization": f"Bearer {token}"}
                    async with http.anybody.get(path, headers=headers) as response:
                        assert response.status in {403, 404}, (path, await response.text())


@pytest.mark.parametrize("path", ["/", "/api/report"])
async def test_why_somebody_elses_batch_failed_is_shown_to_nobody_but_admins(
    path: str, serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_inside(with_tokens(monkeypatch)) as http:
        with clock_at(time.time() - 600.0) as clock:
            failing = (FailureKind.REJECTED, 422, "words of a request", ["i3"])
            await live(http.app.store, clock, Night("talk", clock.now, 20, wrong=[failing]))
        readers = [f"Bearer {token}" for _, token in TOKENS.values()]

        async def who_sees_it() -> list[str]:
            seen = []
            for reader in ["", *readers]:
                headers = {"Authorization": reader} if reader else http.client.headers
                async with http.anybody.get(path, headers=headers) as response:
                    seen += [reader] if "words of a request" in await response.text() else []
            return seen

        assert await who_sees_it() == ["", *readers]
        await to_thread.run_sync(give_to_carl, http.app.store.database.path)
        assert await who_sees_it() == [""]


async def test_the_report_of_a_night_has_only_runs_that_whoever_asks_may_see(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_inside(with_tokens(monkeypatch)) as http:
        with clock_at(time.time() - 600.0) as clock:
            failing = (FailureKind.REJECTED, 422, "words of a request", ["i3"])
            await live(http.app.store, clock, Night("talk", clock.now, 20, wrong=[failing]))
        await to_thread.run_sync(give_to_carl, http.app.store.database.path)
        for headers, seen in ((http.client.headers, True), ({"Authorization": f"Bearer {TOKENS['ann'][1]}"}, False)):
            page = made = "is being made"
            while made in page:
                async with http.anybody.get("/report", headers=headers) as response:
                    page = await response.text()
            assert ("words of a request" in page) is seen


async def test_buttons_are_shown_only_to_those_who_may_press_them(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_inside(with_tokens(monkeypatch)) as http:
        await add_run(http)
        ann = {"Authorization": f"Bearer {TOKENS['ann'][1]}"}
        await to_thread.run_sync(put_into_the_queue, http.app.store.database.path)
        for path in ("/runs/1", "/runs/1/failures", "/runs/1/items/i3", "/queue"):
            async with http.client.get(path) as response:
                assert 'method="post"' in await response.text(), path
            async with http.anybody.get(path, headers=ann) as response:
                assert 'method="post"' not in await response.text(), path


async def test_a_get_changes_nothing(built: list[web.Application], http: Inside) -> None:
    await add_run(http)
    before = await changes(http)
    for method, path in routes(built):
        if method == "GET" and path not in OPEN:
            async with http.client.get(path) as response:
                assert response.status in {200, 303, 400, 404}, (path, await response.text())
    assert await changes(http) == before


def with_tokens(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings with a token for each of two roles."""
    tokens = {}
    for name, (role, token) in TOKENS.items():
        monkeypatch.setenv(name.upper(), token)
        tokens[name] = {"role": role, "token_env": name.upper()}
    return settings_from({"server": {"tokens": tokens}})


def put_into_the_queue(ledger: Path) -> None:
    with closing(DRIVER.connect(ledger)) as connection, connection:
        connection.execute("UPDATE run SET due_at = 1.0 WHERE id = 1")


def give_to_carl(ledger: Path) -> None:
    """Make run 1 the run of a batch that Carl made."""
    columns: dict[str, object] = {"id": "batch_1", "owner": "carl", "run_id": 1, "in_progress_at": 1.0}
    with closing(DRIVER.connect(ledger)) as connection, connection:
        for _, name, kind, required, default, _ in connection.execute("PRAGMA table_info(batch)").fetchall():
            if required and default is None:
                columns.setdefault(name, "x" if "TEXT" in kind or "VARCHAR" in kind else 1)
        marks = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO batch ({', '.join(columns)}) VALUES ({marks})", list(columns.values()))


async def add_run(http: Inside) -> None:
    """Add a run that is of no batch."""
    wrong = [(FailureKind.REJECTED, 422, "too long", ["i3"])]
    night = Night("talk", 0.0, 20, ends=None, settles=10, wrong=wrong)
    with clock_at(1_000_000_000.0) as clock:
        night.begins = clock.now
        await live(http.app.store, clock, night)


async def test_what_users_and_models_wrote_is_markup_on_no_page(built: list[web.Application], http: Inside) -> None:
    await add_run(http)
    await to_thread.run_sync(write_markup, http.app.store.database.path)
    shown = 0
    for method, path in routes(built):
        if method == "GET" and path != "/events":  # which does not end
            async with http.client.get(path) as response:
                text = (await response.content.read(1 << 20)).decode()
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                if response.content_type == "text/html":
                    assert "<evil>" not in text, path
                    shown += "&lt;evil&gt;" in text
                else:
                    assert response.content_type in NO_MARKUP, path
    assert shown > 3


def write_markup(ledger: Path) -> None:
    """Put markup into everything that comes from a user or a model."""
    with closing(DRIVER.connect(ledger)) as connection, connection:
        connection.execute("""UPDATE item SET request = '"<evil>asked</evil>"' WHERE request IS NOT NULL""")
        connection.execute("""UPDATE result SET output = '"<evil>said</evil>"' WHERE output IS NOT NULL""")
        connection.execute("UPDATE attempt SET message = '<evil>failed</evil>', body = '<evil>refused</evil>'")
        connection.execute("UPDATE awake_window SET endpoint = '<evil>endpoint</evil>'")


async def changes(http: Inside) -> list[tuple[Any, ...]]:
    """Return every row of the ledger, and the names of the files beside it."""
    path = http.app.store.database.path

    def read() -> list[tuple[Any, ...]]:
        with closing(DRIVER.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
            files = [(file.name,) for file in sorted(path.parent.rglob("*")) if file.is_file()]
            return files + [
                (name, *row) for (name,) in names for row in connection.execute(f"SELECT * FROM {name}").fetchall()
            ]

    return await to_thread.run_sync(read)
