"""A real webhook server on loopback. It records every request and answers as told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` holds status and headers of the next answers; afterwards it answers 204."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, await request.read()))
        status, said = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=said)


@asynccontextmanager
async def receiver(*answers: tuple[int, dict[str, str]]) -> AsyncIterator[Receiver]:
    running = Receiver(answers=list(answers))
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", running.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        running.url = f"http://127.0.0.1:{runner.addresses[0][1]}/told"
        yield running
    finally:
        await runner.cleanup()
