"""Which HTTP client asks an endpoint, and what the threads of `ry` do to the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.config import Settings
from orchestrator.domain.http_client import is_plain
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.fast_client import FastClient
from orchestrator.endpoints.http_client import described_client, open_client


@pytest.mark.parametrize(
    ("url", "proxy", "plain"),
    [
        ("http://127.0.0.1:8000/", None, True),
        ("https://model.invalid/", None, False),
        ("http://model.invalid/", "http://proxy:3128", False),
    ],
)
async def test_only_plain_http_without_a_proxy_is_asked_by_the_fast_client(
    each_http_client: str, url: str, proxy: str | None, *, plain: bool
) -> None:
    assert is_plain(url, proxy) is plain
    async with open_client(url, {}, proxy, Policy()) as client:
        assert isinstance(client, FastClient) is (plain and each_http_client == "ry")


def test_the_setting_turns_it_off_and_says_so() -> None:
    assert Settings().http_client == "auto"
    assert described_client("auto").startswith("ry ")
    assert described_client("aiohttp").endswith('because of http_client = "aiohttp"')


def ended(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)


SERVE = """
import asyncio, os, sys
from contextlib import suppress
import anyio
from orchestrator import Policy
from orchestrator.endpoints import HttpEndpoint

async def served(ask, hold=False):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        if hold:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return
        name = b"ry" if b"ry/" in head else b"aiohttp"
        writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n"%b"' % (len(name) + 2, name))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    endpoint = HttpEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with endpoint.control() as control, control.connect(Policy()) as data:
        return await ask(data)

async def once(data):
    return await data.ask([b'"text"'])
"""


def test_only_the_main_thread_asks_with_it() -> None:
    async def used() -> str:
        async with open_client("http://localhost/", {}, None, Policy()) as client:
            return type(client).__name__

    with ThreadPoolExecutor() as threads:
        assert threads.submit(asyncio.run, used()).result() == "AiohttpClient"
    assert asyncio.run(used()) == "FastClient"


def test_asking_with_it_imports_no_aiohttp_not_even_for_failures() -> None:
    script = """
print(asyncio.run(served(once)))
endpoint = HttpEndpoint("http://127.0.0.1:9/")

async def refused():
    async with endpoint.control() as control, control.connect(Policy()) as data:
        try:
            await once(data)
        except Exception as error:
            print(type(error).__name__, error)

asyncio.run(refused())
print("aiohttp" in sys.modules)
"""
    said = "cannot connect to 127.0.0.1:9 (Connection refused)"
    done = ended(SERVE + script)
    assert (done.stdout, done.stderr) == (f"['ry']\nEndpointLost {said}\nFalse\n", "")


def test_a_process_that_was_forked_from_one_with_its_threads_asks_with_aiohttp() -> None:
    script = """
print(asyncio.run(served(once)), flush=True)
if os.fork() == 0:
    print(asyncio.run(served(once)), flush=True)
    os._exit(0)
print(os.wait()[1])
"""
    done = ended(SERVE + script)
    assert (done.stdout, done.stderr) == ("['ry']\n['aiohttp']\n0\n", "")


def test_a_process_with_many_requests_in_flight_ends_at_once_and_quietly() -> None:
    script = """
async def many(data):
    with anyio.move_on_after(0.5):
        async with anyio.create_task_group() as group:
            for _ in range(600):
                group.start_soon(data.ask, [b'"text"'])
    sys.exit(7)

asyncio.run(served(many, hold=True))
"""
    done = ended(SERVE + script)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
