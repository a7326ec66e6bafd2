"""`/v1/files` and `/v1/uploads` as any HTTP client sees them: ranges, names, limits, uploads that break off."""

from __future__ import annotations

import hashlib
import resource
import socket
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from anyio import to_thread

from orchestrator.config import Server, ServerToken, Settings
from orchestrator.domain.identity import Role
from tests.commands import POLL
from tests.server.conftest import TOKEN
from tests.server.openai.conftest import jsonl, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.server.conftest import Inside

CONTENT = jsonl([line("a", "first"), line("b", "second")])


async def sent(
    http: Inside, content: bytes = CONTENT, *, filename: str = "night.jsonl", **fields: str
) -> dict[str, Any]:
    """Send a file as a form and return the answer, which may be an error."""
    form = aiohttp.FormData({"purpose": "batch", **fields}, quote_fields=False)
    form.add_field("file", content, filename=filename)
    async with http.client.post("/v1/files", data=form) as response:
        found: dict[str, Any] = await response.json()
    return found


def left(folder: Path) -> list[str]:
    """Return the names of the stored contents, those that are half written included."""
    files = folder / "ledger.db.files"
    return [path.name for path in files.iterdir()] if files.exists() else []


async def test_a_content_is_whole_or_the_range_that_is_asked_for(http: Inside) -> None:
    path = f"/v1/files/{(await sent(http))['id']}/content"
    async with http.client.get(path) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''night.jsonl"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert await response.read() == CONTENT
        tag = response.headers["ETag"]
    async with http.client.head(path) as response:
        assert (response.status, response.content_length) == (200, len(CONTENT))
    for wanted, status, content in (
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=10-", 206, CONTENT[10:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes= 0-9 ", 200, CONTENT),
        (f"bytes={len(CONTENT)}-", 416, None),
        ("bytes=0-1,4-5", 200, CONTENT),
        ("bytes=9-0", 200, CONTENT),
        ("bytes=abc", 200, CONTENT),
        ("lines=0-9", 200, CONTENT),
        ("bytes=-", 200, CONTENT),
    ):
        async with http.client.get(path, headers={"Range": wanted}) as response:
            assert response.status == status
            if content is not None:
                assert await response.read() == content
    async with http.client.get(path, headers={"If-None-Match": tag}) as response:
        assert response.status == 304


@pytest.mark.parametrize("filename", ["night é.jsonl", "a b;c.jsonl", "x/../../../etc/x.jsonl"])
async def test_a_name_is_only_a_name(http: Inside, filename: str) -> None:
    file = await sent(http, filename=filename)
    assert file["filename"] == filename
    async with http.client.get(f"/v1/files/{file['id']}/content") as response:
        assert await response.read() == CONTENT


@pytest.mark.parametrize(("field", "status"), [(b"purpose", 200), (b"\xff", 400)])
async def test_names_that_are_not_text_are_no_failure(http: Inside, field: bytes, status: int) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="'
    body = head + field + b'"\r\n\r\nbatch\r\n' + head + b'file"; filename="\xff.jsonl"\r\n\r\n{}\r\n--x--\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    async with http.client.post("/v1/files", data=body, headers=form) as response:
        assert response.status == status
        assert status == 400 or (await response.json())["filename"] == "\N{REPLACEMENT CHARACTER}.jsonl"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("night.json", CONTENT),
        ("night.jsonl", b""),
        ("night.jsonl", b" \n \n"),
        ("night.jsonl", b"custom_id,text\n"),
        ("night.jsonl", b"[1]\n"),
        ("night.jsonl", b"x" * 200_000),
    ],
)
async def test_what_is_no_input_of_a_batch_is_refused_and_leaves_nothing(
    http: Inside, tmp_path: Path, name: str, content: bytes
) -> None:
    error = (await sent(http, content, filename=name))["error"]
    assert error["message"].startswith("Invalid file format for Batch API. Must be .jsonl")
    assert await to_thread.run_sync(left, tmp_path) == []
    assert "id" in await sent(http, content, filename=name, purpose="user_data")


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + CONTENT, b"\n" + CONTENT, CONTENT.strip(), b'{"a": "' + b"x" * 200_000 + b'"}']
)
async def test_only_the_first_line_is_looked_at_when_a_file_arrives(http: Inside, content: bytes) -> None:
    assert (await sent(http, content))["bytes"] == len(content)


async def test_an_upload_that_breaks_off_leaves_nothing(http: Inside, tmp_path: Path) -> None:
    host, port = http.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: 100000000\r\n\r\n"
        '--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    with await to_thread.run_sync(socket.create_connection, (host, int(port))) as connection:
        await to_thread.run_sync(connection.sendall, head.encode() + CONTENT * 10_000)
        while not await to_thread.run_sync(left, tmp_path):
            await anyio.sleep(POLL)
    while await to_thread.run_sync(left, tmp_path):
        await anyio.sleep(POLL)
    async with http.client.get("/v1/files") as response:
        assert not (await response.json())["data"]


async def test_only_an_owner_and_an_admin_see_a_file_and_a_reader_sends_none(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = {"ann": Role.RUN, "ben": Role.RUN, "eve": Role.READ}
    tokens = {name: ServerToken(role, token_env=name.upper()) for name, role in roles.items()}
    bearers = {}
    for name in tokens:
        monkeypatch.setenv(name.upper(), f"token-of-{name}-of-the-tests")
        bearers[name] = {"Authorization": f"Bearer token-of-{name}-of-the-tests"}
    async with serve_inside(Settings(server=Server(tokens=tokens))) as http:
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", CONTENT, filename="a.jsonl")
        async with http.client.post("/v1/files", data=form, headers=bearers["ann"]) as response:
            id_ = (await response.json())["id"]
        for name, status in (("ann", 200), ("ben", 404), ("eve", 404)):
            for path in (f"/v1/files/{id_}", f"/v1/files/{id_}/content"):
                async with http.client.get(path, headers=bearers[name]) as response:
                    assert response.status == status
        upload = await _begun(http, 1, bearers["ann"])
        for name, status in (("eve", 403), ("ben", 404), ("ann", 200)):
            async with http.client.delete(f"/v1/files/{id_}", headers=bearers[name]) as response:
                assert response.status == status
            async with http.client.post(f"/v1/uploads/{upload}/cancel", headers=bearers[name]) as response:
                assert response.status == status


async def test_parts_are_put_together_in_the_order_in_which_the_client_names_them(http: Inside, tmp_path: Path) -> None:
    upload = await _begun(http, len(CONTENT))
    parts = [await _part(http, upload, piece) for piece in (CONTENT[40:], CONTENT[:40])]
    wrong = {"part_ids": parts[::-1], "md5": md5(b"")}
    async with http.client.post(f"/v1/uploads/{upload}/complete", json=wrong) as response:
        assert response.status == 400
        assert "do not have the MD5" in (await response.json())["error"]["message"]
    right = {"part_ids": parts[::-1], "md5": md5(CONTENT)}
    async with http.client.post(f"/v1/uploads/{upload}/complete", json=right) as response:
        complete = await response.json()
        assert (response.status, complete["status"]) == (200, "completed")
    async with http.client.get(f"/v1/files/{complete['file']['id']}/content") as response:
        assert await response.read() == CONTENT
    assert await to_thread.run_sync(left, tmp_path) == [hashlib.sha256(CONTENT).hexdigest()]


async def test_a_cancelled_upload_leaves_nothing_and_takes_no_more_parts(http: Inside, tmp_path: Path) -> None:
    upload = await _begun(http, len(CONTENT))
    part = await _part(http, upload, CONTENT)
    async with http.client.post(f"/v1/uploads/{upload}/cancel") as response:
        assert (await response.json())["status"] == "cancelled"
    assert await to_thread.run_sync(left, tmp_path) == []
    form = aiohttp.FormData()
    form.add_field("data", CONTENT, filename="upload")
    async with http.client.post(f"/v1/uploads/{upload}/parts", data=form) as response:
        assert response.status == 400
    async with http.client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [part]}) as response:
        assert response.status == 400


async def test_an_upload_over_the_limit_is_refused_when_it_is_announced(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
) -> None:
    async with serve_inside(Settings(server=Server(max_file_bytes=1000))) as http:
        body = {"bytes": 1001, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"}
        async with http.client.post("/v1/uploads", json=body) as response:
            assert response.status == 413


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


async def _begun(http: Inside, size: int, headers: Mapping[str, str] | None = None) -> str:
    body = {"bytes": size, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    async with http.client.post("/v1/uploads", json=body, headers=headers) as response:
        upload = await response.json()
    assert (upload["status"], upload["expires_at"] - upload["created_at"]) == ("pending", 3600)
    return str(upload["id"])


async def _part(http: Inside, upload: str, piece: bytes) -> str:
    form = aiohttp.FormData()
    form.add_field("data", piece, filename="upload")
    async with http.client.post(f"/v1/uploads/{upload}/parts", data=form) as response:
        part = await response.json()
    assert (part["object"], part["upload_id"]) == ("upload.part", upload)
    return str(part["id"])


async def test_a_damaged_content_is_not_given_as_what_was_stored(http: Inside) -> None:
    id_ = (await sent(http))["id"]
    blobs = http.app.store.files.blobs
    (sha256,) = await to_thread.run_sync(blobs.contents)
    async with http.client.get(f"/v1/files/{id_}/content") as response:
        assert await response.read() == CONTENT
    await to_thread.run_sync(blobs.path(sha256).write_bytes, CONTENT[:-1] + b"?")
    async with http.client.get(f"/v1/files/{id_}/content") as response:
        assert (response.status, response.headers["x-should-retry"]) == (500, "false")
        assert "is damaged" in (await response.json())["error"]["message"]


async def test_a_full_disk_is_one_line_leaves_nothing_and_is_not_tried_again(http: Inside, tmp_path: Path) -> None:
    await sent(http)
    before = await to_thread.run_sync(left, tmp_path)
    with largest_file(2_000_000):
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", BytesIO(CONTENT * 50_000), filename="a.jsonl")
        async with http.client.post("/v1/files", data=form) as response:
            assert response.status == 500
            assert response.headers["x-should-retry"] == "false"
            message = (await response.json())["error"]["message"]
    assert "free some space" in message
    assert "\n" not in message
    assert await to_thread.run_sync(left, tmp_path) == before
    assert "id" in await sent(http)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: as on a full disk, a write fails half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
