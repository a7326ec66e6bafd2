"""Replica: one server process that we run under a supervisor, and its data plane, which notices when it dies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, FailureKind, RequestFailed
from orchestrator.endpoints.http import data_plane
from orchestrator.endpoints.last_words import ending, port_was_taken, reason
from orchestrator.endpoints.processes import shown
from orchestrator.endpoints.reach import why_silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.http import HttpData
    from orchestrator.endpoints.server_log import ServerLog
    from orchestrator.ports import Again
    from orchestrator.wires.wire import Wire

_END = b"end\n"  # any word is the order
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_BURIAL = 15.0  # seconds beyond the grace in which the supervisor has ended everything
_UNWELL = 10.0  # seconds that a server which answered before may refuse its health route
_LOOK = 5.0  # seconds for one look at it
_PORTS_LOST = 3  # times in a row
_PORTS = ("{port}", "{port2}")
_LAST_MOMENTS = 1.0  # seconds in which a process that broke a connection or answered 5xx is seen to end


def program(command: Sequence[str]) -> str | None:
    """Where the command's program is: on the PATH, else beside our own Python. Looks at the disk."""
    beside = os.path.dirname(sys.executable)  # noqa: PTH120 - links stay as they are
    return shutil.which(command[0]) or shutil.which(command[0], path=beside)


class ReplicaHealth(Enum):
    """What a server says when it is asked how it is."""

    WELL = "well"
    UNWELL = "unwell"  # it refuses
    SILENT = "silent"  # it has no time to say so


@dataclass(eq=False, slots=True)
class Replica:
    """One process of a server: its control plane. Each start chooses its ports and begins a section of its log."""

    terms: ClassVar[Terms | None] = None  # it ends with this process, however it ends
    installing: ClassVar[bool] = False
    look_every: ClassVar[float] = 0.25

    name: str
    command: Sequence[str]
    address: str  # where it is asked; {port} stands for the chosen port
    health: str | None
    environment: Mapping[str, str]
    headers: Mapping[str, str]
    log: ServerLog
    grace: float
    wire_for: Callable[[Policy], Wire]
    said: str = field(init=False, default="not started")
    _url: URL = field(init=False, default_factory=URL)
    _process: Process | None = field(init=False, default=None)
    _since: int = field(init=False, default=0)  # where in the log the words of this start begin
    _unwell_since: float | None = field(init=False, default=None)
    _answered: bool = field(init=False, default=False)
    _ports_lost: int = field(init=False, default=0)

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the supervisor, while there is one; the server is its child."""
        return None if self._process is None else self._process.pid

    async def resume(self) -> None:
        """Start the server unless it is running. `EndpointFailed` if its port is taken."""
        if await self.state() not in {EndpointState.STARTING, EndpointState.AWAKE}:
            await self._start()

    async def _start(self) -> None:
        """End what is left of the last start, and start the server."""
        with anyio.CancelScope(shield=True):  # half a start would be a process that nobody knows of
            await self.pause()
            ports = _free_ports()
            self._url = URL(_filled(self.address, ports))
            if "{port}" not in self.address and await why_silent(self._url, None, {}) is None:
                raise EndpointFailed(
                    f"port {self._url.port} of {self._url.host} is taken: end what listens there, or write {{port}} in "
                    "command and url, and a free one is chosen"
                )
            command = [_filled(word, ports) for word in self.command]
            with ExitStack() as stack:
                file, self._since = await to_thread.run_sync(self.log.begin, shown(command))
                stack.callback(os.close, file)
                self._process = await anyio.open_process(
                    [sys.executable, "-I", "-S", str(_SUPERVISOR), str(self.grace), str(os.getpid()), *command],
                    stdin=subprocess.PIPE,  # for the order to end
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={name: _filled(value, ports) for name, value in self.environment.items()},
                    start_new_session=True,  # Ctrl-C is for us; it answers until we end it
                )
            self.said = "loading"

    async def price(self) -> None:
        """Nobody publishes one."""

    async def answers(self) -> bool:
        """Whether the health route says 200."""
        return await self.state() is EndpointState.AWAKE

    async def restart(self) -> None:
        """End the server, so that `resume` starts it anew."""
        await self.pause()

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[ReplicaData]:
        """Open the data plane of the running server."""
        async with data_plane(self._url, self.headers, self.wire_for(policy), policy) as data:
            yield ReplicaData(self, data)

    async def pause(self, *, to_zero: bool = False) -> None:
        """End the server with everything that it started, and confirm that it is gone."""
        if self._process is not None:
            process = self._process
            with anyio.CancelScope(shield=True):
                if process.stdin is not None:
                    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                        await process.stdin.send(_END)  # whoever was forked off may hold the pipe open
                    await process.stdin.aclose()
                with anyio.move_on_after(self.grace + _BURIAL):
                    await process.wait()
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()  # which kills the server, too
                    await process.wait()
        self._process, self._answered, self._unwell_since = None, False, None
        self.said = "not running"

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
        said = reason(await to_thread.run_sync(self.log.tail, self._since))
        return f"{ending(code)}; its last words: {said}; its log: {self.log.path}"

    async def state(self) -> EndpointState:
        """Look at the process and ask the server. FAILED means that it ended before it ever answered."""
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            return await self._seen_ended(self._process.returncode)
        match await self._health():
            case ReplicaHealth.WELL:
                self._answered, self._unwell_since, self._ports_lost, self.said = True, None, 0, "awake"
                return EndpointState.AWAKE
            case _ if not self._answered:
                line = await to_thread.run_sync(self.log.last_line, self._since)
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
        chosen = "{port}" in self.address and self._ports_lost < _PORTS_LOST
        if not chosen or not port_was_taken(await to_thread.run_sync(self.log.tail, self._since)):
            return False
        self._ports_lost += 1
        await self._start()
        return True

    async def _health(self) -> ReplicaHealth:
        if self.health is None:
            return ReplicaHealth.WELL if await why_silent(self._url, None, {}) is None else ReplicaHealth.UNWELL
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LOOK)) as session,
                session.get(self._url.join(URL(self.health)), headers=self.headers, allow_redirects=False) as response,
            ):
                return ReplicaHealth.WELL if response.status == 200 else ReplicaHealth.UNWELL
        except TimeoutError:
            return ReplicaHealth.SILENT
        except (aiohttp.ClientError, OSError):
            return ReplicaHealth.UNWELL


class ReplicaData:
    """Items to the server, answers back. If the server dies, `EndpointLost` says so instead of a broken request."""

    max_in_flight: int | None = None

    def __init__(self, replica: Replica, data: HttpData) -> None:
        self._replica = replica
        self._data = data
        self._asking = 0
        self.limits = data.limits

    @property
    def quiet_until(self) -> float:
        """As the server's own data plane says."""
        return self._data.quiet_until

    async def metrics(self) -> str | None:
        """As the server's own data plane says."""
        return await self._data.metrics()

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Ask once; as `DataPlane.ask`."""
        if not self._replica.runs:
            raise await self._died(blames_items=False)
        had_others = self._asking > 0
        self._asking += 1
        try:
            return await self._data.ask(requests, again)
        except EndpointLost as loss:  # no connection, or the server itself says that it is not ready
            if await self._replica.ends_within(_LAST_MOMENTS):
                raise await self._died(blames_items=had_others) from loss
            raise
        except RequestFailed as failure:
            if await self._is_last(failure):
                raise await self._died(blames_items=True) from failure
            raise
        finally:
            self._asking -= 1

    async def _died(self, *, blames_items: bool) -> EndpointLost:
        over = " died over a request: it" if blames_items else ""
        how = await self._replica.how_it_ended()
        return EndpointLost(f"{self._replica.name}: the server{over} {how}", blames_items=blames_items)

    async def _is_last(self, failure: RequestFailed) -> bool:
        """Whether the server is ending: it broke the connection, or answered 5xx and is not well."""
        replica = self._replica
        if failure.kind is FailureKind.UNAVAILABLE and (failure.status or 0) >= 500:
            return not (replica.runs and await replica.is_well()) and await replica.ends_within(_LAST_MOMENTS)
        return failure.kind is FailureKind.CONNECTION and await replica.ends_within(_LAST_MOMENTS)


def _free_ports() -> dict[str, str]:
    """A port for each placeholder that nobody listens on now."""
    with ExitStack() as stack:
        taken = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in _PORTS]
        return {name: str(port.getsockname()[1]) for name, port in zip(_PORTS, taken, strict=True)}


def _filled(text: str, ports: Mapping[str, str]) -> str:
    for name, port in ports.items():
        text = text.replace(name, port)
    return text
