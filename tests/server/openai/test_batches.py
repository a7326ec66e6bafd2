"""`/v1/batches` as any HTTP client sees it: pages, roles, servers that run no batches."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import aiohttp

from tests.server.openai.conftest import jsonl, line

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.server.conftest import Inside


async def created(http: Inside) -> tuple[int, dict[str, object]]:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", jsonl([line("a", "first")]), filename="a.jsonl")
    async with http.client.post("/v1/files", data=form) as response:
        file = (await response.json())["id"]
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with http.client.post("/v1/batches", json=body) as response:
        return response.status, await response.json()


async def test_a_server_that_runs_no_batches_takes_none_unless_a_daemon_is_running(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
) -> None:
    async with serve_inside(executes=False) as http:
        status, found = await created(http)
        assert status == 503
        assert "no daemon is running" in str(found)
        await http.app.store.runs.register(host="h", pid=1, pid_started=0.0, lease=60.0, serves=True)
        status, found = await created(http)
        assert (status, found["object"]) == (200, "batch")


async def test_a_body_that_is_not_an_object_is_refused(http: Inside) -> None:
    for body, why in ((b"", "could not parse"), (b"{", "could not parse"), (b"[]", "expected an object")):
        async with http.client.post("/v1/batches", data=body) as response:
            assert response.status == 400
            assert why in (await response.json())["error"]["message"]
    async with http.client.post("/v1/batches", data=b"{}", headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400
        assert "the body cannot be read" in (await response.json())["error"]["message"]
    async with http.client.post("/v1/batches", data=BytesIO(b"[" * 2_000_000)) as response:
        assert response.status == 413


async def test_the_query_of_a_list_is_checked(http: Inside) -> None:
    for path, most in (("/v1/batches", 100), ("/v1/files", 10_000)):
        for limit, status in ((1, 200), (most, 200), (0, 400), (most + 1, 400)):
            async with http.client.get(path, params={"limit": limit}) as response:
                assert response.status == status, await response.text()
        async with http.client.get(path, params={"after": "nothing"}) as response:
            assert response.status == 404
