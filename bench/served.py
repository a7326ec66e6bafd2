"""A server in a process of its own, on a free port of this machine, as benchmarks need it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


@contextmanager
def served(module: str, *arguments: str) -> Iterator[str]:
    """Start `python -m MODULE ARGUMENTS`, which calls `serve`, and give its URL. It ends with the block."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


async def serve(app: web.Application) -> None:
    """Serve on a free port, which is printed, until stdin ends: with whoever started this process, at the latest."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def told(url: str, value: object = None) -> Any:
    """The JSON behind a URL: of a GET or, with a value, of a PUT."""
    body = None if value is None else orjson.dumps(value)
    request = urllib.request.Request(url, body, method="GET" if body is None else "PUT")  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own
        return orjson.loads(answer.read())


def said(value: object, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
