"""Forms with a file, as a stream: any order of parts, in blocks, with limits, and what is not such a form."""

from __future__ import annotations

from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from orchestrator.server.failures import answer_failures
from orchestrator.server.openai.multipart import read_form
from orchestrator.server.page.layout import failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MOST = 5 << 20


class Received:
    """A server that reads forms, and what it wrote of the last one."""

    url: str

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    @property
    def content(self) -> bytes:
        return b"".join(self.blocks)

    async def handle(self, request: web.Request) -> web.Response:
        self.blocks.clear()

        async def write(block: bytes) -> None:
            self.blocks.append(block)

        form = await read_form(request, "file", write, most=MOST)
        return web.json_response({"fields": dict(form.fields), "filename": form.filename, "size": len(self.content)})


@pytest.fixture
async def received() -> AsyncIterator[Received]:
    found = Received()
    application = web.Application(middlewares=[answer_failures(failure)])
    application.router.add_post("/v1/files", found.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/files"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def sent(received: Received, body: bytes, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Content-Type": "multipart/form-data; boundary=edge", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.post(received.url, data=BytesIO(body), headers=headers) as response,
    ):
        yield response


def part(name: str, content: bytes, *, filename: str | None = None, **headers: str) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    lines = [f'Content-Disposition: form-data; name="{name}"{named}', *(f"{k}: {v}" for k, v in headers.items())]
    return b"--edge\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--edge--\r\n"
PURPOSE = part("purpose", b"batch")


@pytest.mark.parametrize("content", [b"", b"a", b"\r\n", b"\r\n--edg", b"{}\n" * 1_000_000, b"-" * MOST])
async def test_a_file_arrives_unchanged_before_or_after_the_fields(received: Received, content: bytes) -> None:
    file = part("file", content, filename="night é.jsonl")
    for body in (PURPOSE + file + END, file + PURPOSE + END):
        async with sent(received, body) as response:
            assert response.status == 200, await response.text()
            assert await response.json() == {
                "fields": {"purpose": "batch"},
                "filename": "night é.jsonl",
                "size": len(content),
            }
        assert received.content == content
        assert max(map(len, received.blocks)) < 1.1 * (1 << 20)


REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "no parts": (END, 400, "Missing required parameter: 'file'"),
    "no file": (PURPOSE + END, 400, "Missing required parameter: 'file'"),
    "two files": (part("file", b"a", filename="a") + part("file", b"b", filename="b") + END, 400, "more than one"),
    "two purposes": (PURPOSE + PURPOSE + END, 400, "more than one 'purpose'"),
    "too large": (part("file", b"-" * (MOST + 1), filename="a") + END, 413, "larger than 5,242,880 bytes"),
    "a field too large": (part("purpose", b"-" * (1 << 17)) + END, 413, "larger than 65,536 bytes"),
    "an encoding": (part("file", b"YQ==", **{"Content-Transfer-Encoding": "base64"}) + END, 400, "send it as it is"),
    "no end": (part("file", b"a", filename="a"), 400, "not valid multipart"),
    "no boundary": (b"purpose=batch", 400, "not valid multipart"),
    "no name": (b"--edge\r\nContent-Type: text/plain\r\n\r\na\r\n" + END, 400, "one file"),
    "a nested form": (
        b'--edge\r\nContent-Disposition: form-data; name="file"\r\n'
        b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in--\r\n" + END,
        400,
        "one file",
    ),
    "many parts": (b"".join(part(f"p{n}", b"") for n in range(101)) + END, 400, "a few fields"),
    "a long header": (part("file", b"", filename="x" * 20_000) + END, 400, "Got more than 8190 bytes"),
    "no text": (part("purpose", b"\xff") + END, 400, "not valid multipart"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_such_a_form_is_refused_with_one_line(received: Received, case: str) -> None:
    body, status, why = REFUSED[case]
    async with sent(received, body) as response:
        error = (await response.json())["error"]
        assert response.status == status, error
        assert why in error["message"]
        assert "\n" not in error["message"]
        assert error["type"] == "invalid_request_error"


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(received: Received) -> None:
    async with sent(received, part("file", b"-" * 2 * MOST, filename="a") + END) as response:
        assert response.status == 413
    assert not received.blocks


async def test_another_content_type_is_refused(received: Received) -> None:
    async with sent(received, b"{}", **{"Content-Type": "application/json"}) as response:
        assert response.status == 400
        assert "expected multipart/form-data" in (await response.json())["error"]["message"]
