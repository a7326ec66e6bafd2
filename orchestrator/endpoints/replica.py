"""One server process that we run: started on its supervisor, looked at, ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed
from orchestrator.endpoints.last_words import ending, port_was_taken, reason
from orchestrator.endpoints.processes import shown
from orchestrator.endpoints.reach import why_silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.endpoints.server_log import ServerLog

_END = b"end\n"  # any word is the order
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_BURIAL = 15.0  # seconds beyond the grace in which the supervisor has ended everything
_UNWELL = 10.0  # seconds that a server which answered before may refuse its health route
_LOOK = 5.0  # seconds for one look at it
_PORTS_LOST = 3  # times in a row
_PORTS = ("{port}", "{port2}")


def program(command: Sequence[str]) -> str | None:
    """Where the command's program is: on the PATH, else beside our own Python. Looks at the disk."""
    beside = os.path.dirname(sys.executable)  # noqa: PTH120 - links stay as they are
    return shutil.which(command[0]) or shutil.which(command[0], path=beside)


class ReplicaHealth(Enum):
    """What a server says when it is asked how it is."""

    WELL = "well"
    UNWELL = "unwell"  # it refuses
    SILENT = "silent"  # it has no time to say so


class Replica:
    """One process of a server. Its port is chosen, and its log begun, at each start."""

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        health: str | None,
        environment: Mapping[str, str],
        headers: Mapping[str, str],
        log: ServerLog,
        grace: float,
    ) -> None:
        self._command = command
        self._template = url
        self._health_route = health
        self._environment = environment
        self._headers = headers
        self._log = log
        self._grace = grace
        self._process: Process | None = None
        self._since = 0  # where in the log the words of this start begin
        self._unwell_since: float | None = None
        self._answered = False
        self._ports_lost = 0
        self.url = URL()  # where it is asked
        self.said = "not started"
        self.state = EndpointState.PAUSED  # as it was when it was last looked at
        self.looked_at = 0.0  # on the monotonic clock

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the supervisor, while there is one; the server is its child."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """End what is left of the last time, and start it anew. `EndpointFailed` where its port is taken."""
        with anyio.CancelScope(shield=True):  # half a start would be a process that nobody knows of
            await self.end()
            ports = _free_ports()
            self.url = URL(_filled(self._template, ports))
            if "{port}" not in self._template and await why_silent(self.url, None, {}) is None:
                raise EndpointFailed(
                    f"port {self.url.port} of {self.url.host} is taken: end what listens there, or write {{port}} in "
                    "command and url, and a free one is chosen"
                )
            command = [_filled(word, ports) for word in self._command]
            with ExitStack() as stack:
                file, self._since = await to_thread.run_sync(self._log.begin, shown(command))
                stack.callback(os.close, file)
                self._process = await anyio.open_process(
                    [sys.executable, "-I", "-S", str(_SUPERVISOR), str(self._grace), str(os.getpid()), *command],
                    stdin=subprocess.PIPE,  # for the order to end
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={name: _filled(value, ports) for name, value in self._environment.items()},
                    start_new_session=True,  # Ctrl-C is for us; it answers until we end it
                )
            self.state, self.said = EndpointState.STARTING, "loading"

    async def look(self) -> EndpointState:
        """Look at the process, and ask it. Failed is one that ended before it ever answered."""
        self.state = await self._seen()
        self.looked_at = time.monotonic()
        return self.state

    async def end(self) -> None:
        """End it with all that it has started, and see it gone."""
        if self._process is not None:
            process = self._process
            with anyio.CancelScope(shield=True):
                if process.stdin is not None:
                    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                        await process.stdin.send(_END)  # whoever was forked off may hold the pipe open
                    await process.stdin.aclose()
                with anyio.move_on_after(self._grace + _BURIAL):
                    await process.wait()
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()  # which kills the server, too
                    await process.wait()
        self._process, self._answered, self._unwell_since = None, False, None
        self.state, self.said = EndpointState.PAUSED, "not running"

    async def is_well(self) -> bool:
        """Whether its health route says so now."""
        return await self._health() is ReplicaHealth.WELL

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process is gone, or about to be."""
        process = self._process
        if process is None:
            return True
        with anyio.move_on_after(seconds):
            await process.wait()
        return process.returncode is not None

    async def how_it_ended(self) -> str:
        """How the process ended, and its last words, with what helps where that is known."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "is gone"
        said = reason(await to_thread.run_sync(self._log.tail, self._since))
        return f"{ending(code)}; its last words: {said}; its log: {self._log.path}"

    async def _seen(self) -> EndpointState:
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            return await self._seen_ended(self._process.returncode)
        match await self._health():
            case ReplicaHealth.WELL:
                self._answered, self._unwell_since, self._ports_lost, self.said = True, None, 0, "awake"
                return EndpointState.AWAKE
            case _ if not self._answered:
                line = await to_thread.run_sync(self._log.last_line, self._since)
                self.said = f"loading: {line}" if line else "loading"
                return EndpointState.STARTING
            case ReplicaHealth.SILENT:  # alive, and too busy to say so
                return EndpointState.AWAKE
        now = time.monotonic()
        self._unwell_since = self._unwell_since or now
        self.said = "it runs, but refuses its health route"
        return EndpointState.STARTING if now - self._unwell_since < _UNWELL else EndpointState.PAUSED

    async def _seen_ended(self, code: int) -> EndpointState:
        if not self._answered and await self._lost_its_port():
            return EndpointState.STARTING
        self.said = f"the server {await self.how_it_ended()}"
        if self._answered:
            return EndpointState.PAUSED
        if code == 0:
            self.said = f"{self.said}; it has to stay in the foreground (CommandEndpoint is for one that does not)"
        return EndpointState.FAILED

    async def _lost_its_port(self) -> bool:
        """Whether somebody took the port that was free when we chose it; then it is started again, on another one."""
        chosen = "{port}" in self._template and self._ports_lost < _PORTS_LOST
        if not chosen or not port_was_taken(await to_thread.run_sync(self._log.tail, self._since)):
            return False
        self._ports_lost += 1
        await self.start()
        return True

    async def _health(self) -> ReplicaHealth:
        if self._health_route is None:
            return ReplicaHealth.WELL if await why_silent(self.url, None, {}) is None else ReplicaHealth.UNWELL
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LOOK)) as session,
                session.get(
                    self.url.join(URL(self._health_route)), headers=self._headers, allow_redirects=False
                ) as response,
            ):
                return ReplicaHealth.WELL if response.status == 200 else ReplicaHealth.UNWELL  # noqa: PLR2004 - OK
        except TimeoutError:
            return ReplicaHealth.SILENT
        except (aiohttp.ClientError, OSError):
            return ReplicaHealth.UNWELL


def _free_ports() -> dict[str, str]:
    """A port for each placeholder that nobody listens on now."""
    with ExitStack() as stack:
        taken = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in _PORTS]
        return {name: str(port.getsockname()[1]) for name, port in zip(_PORTS, taken, strict=True)}


def _filled(text: str, ports: Mapping[str, str]) -> str:
    for name, port in ports.items():
        text = text.replace(name, port)
    return text
