"""A provider on loopback, in a thread of the test process: what the fakes of several providers have in common."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from tests.untraced import UntracedThread

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProviderService(ABC):
    """Serves the provider's API at `url` while it is `running`, and whatever else is served with `_serve`."""

    def __init__(self) -> None:
        self.url = ""
        self.hangs = False  # no call of the API is answered
        self.holds = False  # no request to a server is answered
        self.calls: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._runners: list[web.AppRunner] = []

    @abstractmethod
    def _application(self) -> web.Application:
        """Return the API."""

    async def _serve(self, app: web.Application) -> str:
        """Serve the application until the end; return its URL."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _run(self, begun: threading.Event) -> None:
        self.url = await self._serve(self._application())
        begun.set()
        await self._ended.wait()
        self.hangs = self.holds = False
        for runner in self._runners:
            await runner.cleanup()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the service in a thread; it ends with the block."""
        begun = threading.Event()
        thread = UntracedThread(target=lambda: self._loop.run_until_complete(self._run(begun)))
        thread.start()
        begun.wait()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)
            thread.join()
            self._loop.close()
