"""`/events`: what happens in the ledger reaches every open stream, whichever process does it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from orchestrator.domain.batch import NewBatch
from orchestrator.domain.readings import Reading
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.engine.tasks import task_group
from orchestrator.run_log import event_log
from orchestrator.server import events, live_feed
from orchestrator.server.live_feed import LiveFeed
from orchestrator.store.row_classes import NewItem
from tests.server.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from aiohttp import ClientResponse

    from orchestrator.store import Store
    from tests.server.conftest import Inside

STREAMS = 200


@pytest.fixture(autouse=True)
def looks_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "EVERY", 0.02)
    monkeypatch.setattr(live_feed, "AT_LEAST_EVERY", 1000.0)


class Events:
    """The events of one stream, as a browser reads them."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.last_id: str | None = None
        self.comments = 0

    async def next(self) -> tuple[str, Any]:
        data = b""
        async for line in self._response.content:
            name, _, value = line.rstrip(b"\n").partition(b": ")
            match name:
                case b"":
                    if value:
                        self.comments += 1
                    elif data:
                        found = orjson.loads(data)
                        return found.pop("event"), found
                case b"id":
                    self.last_id = value.decode()
                case b"data":
                    data += value
        raise EOFError

    async def until(self, event: str) -> Any:
        while True:
            name, data = await self.next()
            if name == event:
                return data


@asynccontextmanager
async def stream(
    http: Inside, headers: Mapping[str, str] | None = None, client: ClientSession | None = None
) -> AsyncIterator[Events]:
    async with (client or http.client).get("/events", headers=headers, timeout=ClientTimeout(None)) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Events(response)


async def begin(store: Store, job: str = "talk") -> tuple[int, int]:
    """Take a run with one item; return its number and the process that executes it."""
    me = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=60)
    run = await store.runs.take(Spec(job, "f", "s"), me)
    await store.snapshots.ingest(run.id, run.job_id, 0, [[NewItem("i", "h", "{}", None)]])
    await store.runs.ingested(run.id, total=1, plan=Plan(new=1), input_sha256="s")
    return run.id, me


async def test_a_stream_begins_with_a_snapshot_and_goes_on_with_what_happens(http: Inside) -> None:
    store = http.app.store
    earlier, _ = await begin(store, "earlier")
    async with stream(http) as found:
        name, snapshot = await found.next()
        assert name == "snapshot"
        assert [(run["run"], run["state"], run["counts"]["total"]) for run in snapshot["runs"]] == [
            (earlier, "running", 1)
        ]
        assert snapshot["queue"] == {"served": False, "queue": [], "waiting": 0}
        assert snapshot["endpoints"] == {"awake": []}
        number, me = await begin(store)
        begun = await found.until("run")
        assert (begun["run"], begun["job"], begun["state"]) == (number, "talk", "running")
        await store.readings.note(number, Reading(5.0, me, completed=1, in_flight=3))
        reading = await found.until("reading")
        assert (reading["run"], reading["at"], reading["in_flight"]) == (number, 5.0, 3)
        await store.readings.note(number, Reading(9.0, me, completed=1))
        await store.runs.end(number, me, RunState.STOPPED, "stopped as asked")
        await store.runs.leave(me)
        last: dict[str, Any] = {"reading": reading, "run": begun}
        while last["reading"]["at"] != 9.0 or last["run"]["state"] == "running":
            name, data = await found.next()
            last[name] = data
        ended = last["run"]
        assert (ended["run"], ended["state"], ended["error"]) == (number, "stopped", "stopped as asked")


async def test_the_lines_of_a_runs_log_are_sent_as_they_are_written(http: Inside) -> None:
    async with stream(http) as found:
        await found.next()
        number, _ = await begin(http.app.store)
        log = anyio.Path(event_log(http.app.store.database.path, number))
        await log.parent.mkdir()
        await log.write_text("one\ntwo\nthr")
        assert await found.until("log") == {"run": number, "lines": ["one", "two"]}
        async with await log.open("a") as file:
            await file.write("ee\n")
        assert await found.until("log") == {"run": number, "lines": ["three"]}


async def test_what_is_logged_of_a_batch_is_not_sent_to_everybody(http: Inside) -> None:
    store = http.app.store
    async with stream(http) as found:
        await found.next()
        number, _ = await begin(store)
        batch = await store.batches.add(NewBatch("ann", "/v1/chat/completions", "file-1"), reader="ann")
        await store.batches.begin(batch, number, 1, "m")
        log = anyio.Path(event_log(store.database.path, number))
        await log.parent.mkdir()
        await log.write_text("a failure that quotes the request\n")
        assert await found.until("log") == {"run": number, "lines": []}


async def test_a_client_that_comes_back_gets_what_it_missed(http: Inside) -> None:
    async with stream(http) as witness, stream(http) as first:
        await first.next()
        await witness.next()
        seen, _ = await begin(http.app.store, "seen")
        assert (await first.until("run"))["run"] == seen
        last_id = first.last_id
        assert last_id is not None
        missed, _ = await begin(http.app.store, "missed")
        while (await witness.until("run"))["run"] != missed:
            pass
        async with stream(http, {"Last-Event-ID": last_id}) as again:
            assert (await again.next())[0] != "snapshot"


@pytest.mark.parametrize("last_id", ["", "0", "elsewhere-1", "elsewhere-" + "9" * 5000, "²"])
async def test_an_id_that_is_not_known_gets_a_snapshot(http: Inside, last_id: str) -> None:
    async with stream(http, {"Last-Event-ID": last_id}) as found:
        assert (await found.next())[0] == "snapshot"


async def test_a_client_that_slept_while_more_happened_than_is_kept_gets_a_snapshot(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "KEPT", 2)
    async with serve_inside() as http:
        async with stream(http) as found:
            await found.next()
            last_id = found.last_id or ""
        for job in "abc":
            await begin(http.app.store, job)
        known: list[str] = []
        while known != ["a", "b", "c"]:  # it looks now and then
            async with stream(http, {"Last-Event-ID": last_id}) as again:
                name, found_now = await again.next()
                known = [run["job"] for run in found_now["runs"]] if name == "snapshot" else []


async def test_a_stream_that_falls_behind_what_is_kept_is_ended(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "KEPT", 20)
    feed = LiveFeed(http.app)
    async with task_group() as tasks:
        tasks.start_soon(feed.follow)
        with feed.open() as slow, feed.open() as quick:
            assert b'"event":"snapshot"' in (await slow.next() or b"")
            await quick.next()
            for number in range(30):
                await begin(http.app.store, f"job {number}")
                while f"job {number}".encode() not in (await quick.next() or b""):
                    pass
            assert await slow.next() is None
        tasks.cancel_scope.cancel()


async def test_a_client_that_reads_nothing_is_dropped(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped, drop = anyio.Event(), events._drop

    def drop_and_say(request: web.Request) -> None:
        drop(request)
        dropped.set()

    monkeypatch.setattr(events, "_drop", drop_and_say)
    monkeypatch.setattr(events, "SLOWEST", 0.05)
    host, _, port = http.url.removeprefix("http://").partition(":")
    async with stream(http) as witness, await anyio.connect_tcp(host, int(port)) as connection:
        await witness.next()
        request = f"GET /events HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        await connection.send(request.encode())
        assert (await connection.receive()).startswith(b"HTTP/1.1 200")
        number, _ = await begin(http.app.store)
        log = anyio.Path(event_log(http.app.store.database.path, number))
        await log.parent.mkdir()
        while not dropped.is_set():  # what the system keeps for the connection is full at some point
            async with await log.open("a") as file:
                await file.write("x" * 60_000 + "\n")
            await witness.until("log")


async def test_two_hundred_streams_get_every_event(http: Inside) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        ClientSession(http.url, headers=headers, connector=TCPConnector(limit=0)) as client,
        AsyncExitStack() as stack,
    ):
        found = [await stack.enter_async_context(stream(http, client=client)) for _ in range(STREAMS)]
        for one in found:
            assert (await one.next())[0] == "snapshot"
        number, _ = await begin(http.app.store)
        for one in found:
            assert (await one.until("run"))["run"] == number


async def test_open_streams_end_with_the_server(http: Inside) -> None:
    async with stream(http) as found:
        await found.next()
        http.stop.drain()
        with pytest.raises(EOFError):
            await found.until("the end")


async def test_a_stream_needs_a_token(http: Inside) -> None:
    async with http.anybody.get("/events") as response:
        assert response.status == 401


async def test_more_streams_than_the_server_keeps_are_refused(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST", 1)
    async with stream(http) as found:
        await found.next()
        async with http.client.get("/events") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "10")


async def test_a_quiet_stream_carries_comments(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING", 0.01)
    async with http.client.get("/events") as response:
        read = b""
        while read.count(b": ping\n\n") < 2:
            read += await response.content.readany()
