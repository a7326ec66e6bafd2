"""Replica: one server process under a supervisor, and its data plane, which notices when the process dies."""

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, FailureKind, RequestFailed
from orchestrator.endpoints.http import data_plane
from orchestrator.endpoints.last_words import ending, port_was_taken, reason
from orchestrator.endpoints.processes import shown
from orchestrator.endpoints.reach import says_ready, why_silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.http import HttpData
    from orchestrator.endpoints.server_log import ServerLog
    from orchestrator.ports import Again
    from orchestrator.wires.wire import Wire

_END = b"end\n"  # the supervisor takes any input as the order to end
SUPERVISOR = Path(__file__).with_name("supervisor.py")
_EXIT_WAIT = 15.0  # seconds after the grace within which the supervisor has ended everything
_UNWELL = 10.0  # seconds that the health route of a server that was ready may fail
_LOOK = 5.0  # seconds for one check of the health route
_PORTS_LOST = 3  # times in a row
_PORTS = ("{port}", "{port2}")
_LAST_MOMENTS = 1.0  # seconds that we wait for a process that broke a connection or answered 5xx to end


def program(command: Sequence[str]) -> str | None:
    """Return the path of the command's program, on the PATH or else beside our own Python. Reads the disk."""
    beside = os.path.dirname(sys.executable)  # noqa: PTH120 - links stay as they are
    return shutil.which(command[0]) or shutil.which(command[0], path=beside)


class ReplicaHealth(Enum):
    """What a server's health route says."""

    WELL = "well"
    UNWELL = "unwell"  # it fails
    SILENT = "silent"  # it does not answer in time


@dataclass(eq=False, slots=True)
class Replica:
    """The control plane of one server process. Each start chooses new ports and begins a new section of the log."""

    terms = None  # the server always ends with this process
    installing = False
    look_every = 0.25

    name: str
    command: Sequence[str]
    address: str  # the URL for requests; {port} stands for the chosen port
    health: str | None
    environment: Mapping[str, str]
    headers: Mapping[str, str]
    log: ServerLog
    grace: float
    wire_for: Callable[[Policy], Wire]
    status_text: str = field(init=False, default="not started")
    _url: URL = field(init=False, default_factory=URL)
    _process: Process | None = field(init=False, default=None)
    _since: int = field(init=False, default=0)  # where the output of this start begins in the log
    _unwell_since: float | None = field(init=False, default=None)
    _answered: bool = field(init=False, default=False)
    _ports_lost: int = field(init=False, default=0)

    @property
    def runs(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.returncode is None

    @property
    def url(self) -> str:
        """The URL for requests since the last start."""
        return str(self._url)

    @property
    def pid(self) -> int | None:
        """The process id of the supervisor, whose child is the server, or None if there is none."""
        return None if self._process is None else self._process.pid

    async def resume(self) -> None:
        """Start the server unless it is running. Raises `EndpointFailed` if its port is taken."""
        if await self.state() not in {EndpointState.STARTING, EndpointState.AWAKE}:
            await self._start()

    async def _start(self) -> None:
        """End what is left of the last start, and start the server."""
        with anyio.CancelScope(shield=True):  # an interrupted start could leave a process behind
            await self.pause()
            ports = _free_ports()
            self._url = URL(_filled(self.address, ports))
            if "{port}" not in self.address and await why_silent(self._url, None, {}) is None:
                raise EndpointFailed(
                    f"port {self._url.port} of {self._url.host} is taken: stop the program that uses it, or write "
                    "{port} in command and url, and a free port is chosen"
                )
            command = [_filled(word, ports) for word in self.command]
            with ExitStack() as stack:
                file, self._since = await to_thread.run_sync(self.log.begin, shown(command))
                stack.callback(os.close, file)
                self._process = await anyio.open_process(
                    [sys.executable, "-I", "-S", str(SUPERVISOR), str(self.grace), str(os.getpid()), *command],
                    stdin=subprocess.PIPE,  # for the order to end
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={name: _filled(value, ports) for name, value in self.environment.items()},
                    start_new_session=True,  # Ctrl-C must not reach the server, which answers until we end it
                )
            self.status_text = "loading"

    async def price(self) -> None:
        """Return None: no price is published."""

    async def answers(self) -> bool:
        """Whether the server is ready."""
        return await self.state() is EndpointState.AWAKE

    async def restart(self) -> None:
        """End the server, so that `resume` starts it again."""
        await self.pause()

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[ReplicaData]:
        """Open the data plane of the running server."""
        async with data_plane(self._url, self.headers, self.wire_for(policy), policy) as data:
            yield ReplicaData(self, data)

    async def pause(self, *, to_zero: bool = False) -> None:
        """End the server and every process that it started, and confirm that it is gone."""
        if self._process is not None:
            process = self._process
            with anyio.CancelScope(shield=True):
                if process.stdin is not None:
                    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                        await process.stdin.send(_END)  # closing is not enough: a forked process may hold the pipe open
                    await process.stdin.aclose()
                with anyio.move_on_after(self.grace + _EXIT_WAIT):
                    await process.wait()
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()  # this also kills the server
                    await process.wait()
        self._process, self._answered, self._unwell_since = None, False, None
        self.status_text = "not running"

    async def is_well(self) -> bool:
        """Whether the health route says now that the server is ready."""
        return await self._health() is ReplicaHealth.WELL

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        process = self._process
        if process is None:
            return True
        with anyio.move_on_after(seconds):
            await process.wait()
        return process.returncode is not None

    async def how_it_ended(self) -> str:
        """Say how the process ended, with the last line of its log and, if we know one, a remedy."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "is gone"
        why = reason(await to_thread.run_sync(self.log.tail, self._since))
        return f"{ending(code)}; its last words: {why}; its log: {self.log.path}"

    async def state(self) -> EndpointState:
        """Check the process and its health route. FAILED means that it ended before it was ever ready."""
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            return await self._state_after_end(self._process.returncode)
        match await self._health():
            case ReplicaHealth.WELL:
                self._answered, self._unwell_since, self._ports_lost, self.status_text = True, None, 0, "awake"
                return EndpointState.AWAKE
            case _ if not self._answered:
                line = await to_thread.run_sync(self.log.last_line, self._since)
                self.status_text = f"loading: {line}" if line else "loading"
                return EndpointState.STARTING
            case ReplicaHealth.SILENT:  # alive, but too busy to answer
                return EndpointState.AWAKE
        now = time.monotonic()
        self._unwell_since = self._unwell_since or now
        self.status_text = "it runs, but its health route fails"
        return EndpointState.STARTING if now - self._unwell_since < _UNWELL else EndpointState.PAUSED

    async def _state_after_end(self, code: int) -> EndpointState:
        if not self._answered and await self._lost_its_port():
            return EndpointState.STARTING
        self.status_text = f"the server {await self.how_it_ended()}"
        if self._answered:
            return EndpointState.PAUSED
        if code == 0:
            self.status_text = (
                f"{self.status_text}; it must stay in the foreground (for a server that does not, use CommandEndpoint)"
            )
        return EndpointState.FAILED

    async def _lost_its_port(self) -> bool:
        """If another process has taken the port since we chose it, start the server again on another port."""
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
                return ReplicaHealth.WELL if await says_ready(response) else ReplicaHealth.UNWELL
        except TimeoutError:
            return ReplicaHealth.SILENT
        except (aiohttp.ClientError, OSError):
            return ReplicaHealth.UNWELL


class ServerProcess(Protocol):
    """The process that answers."""

    name: str

    @property
    def runs(self) -> bool:
        """Whether the process is running, as far as is known without looking."""
        ...

    async def is_well(self) -> bool:
        """Whether the health route says now that the server is ready."""
        ...

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        ...

    async def how_it_ended(self) -> str:
        """Say how the process ended."""
        ...


class ReplicaData:
    """The data plane of one replica. If the server dies, it raises `EndpointLost` instead of failing the request."""

    max_in_flight: int | None = None

    def __init__(self, replica: ServerProcess, data: HttpData) -> None:
        self._replica = replica
        self._data = data
        self._asking = 0
        self.limits = data.limits

    @property
    def quiet_until(self) -> float:
        """The same as in the HTTP data plane."""
        return self._data.quiet_until

    async def metrics(self) -> str | None:
        """Return the server's metrics, as the HTTP data plane does."""
        return await self._data.metrics()

    @property
    def streams(self) -> bool:
        """The same as in the HTTP data plane."""
        return self._data.streams

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Send the requests, as in `DataPlane.ask`."""
        return await self._asked(partial(self._data.ask, requests, again))

    async def ask_in_parts(self, requests: Sequence[bytes], first: Callable[[], None]) -> Sequence[object]:
        """Send the requests, as in `StreamsAnswers.ask_in_parts`."""
        return await self._asked(partial(self._data.ask_in_parts, requests, first))

    async def _asked(self, ask: Callable[[], Awaitable[Sequence[object]]]) -> Sequence[object]:
        if not self._replica.runs:
            raise await self._died(blames_items=False)
        had_others = self._asking > 0
        self._asking += 1
        try:
            return await ask()
        except EndpointLost as loss:  # no connection, or the server reports that it is not ready
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
        cause = " died over a request: it" if blames_items else ""
        how = await self._replica.how_it_ended()
        return EndpointLost(f"{self._replica.name}: the server{cause} {how}", blames_items=blames_items)

    async def _is_last(self, failure: RequestFailed) -> bool:
        """Whether the server is ending: it broke the connection, or it answered 5xx and its health route fails."""
        replica = self._replica
        if failure.kind is FailureKind.UNAVAILABLE and (failure.status or 0) >= 500:
            return not (replica.runs and await replica.is_well()) and await replica.ends_within(_LAST_MOMENTS)
        return failure.kind is FailureKind.CONNECTION and await replica.ends_within(_LAST_MOMENTS)


def _free_ports() -> dict[str, str]:
    """Return a free port for each placeholder."""
    with ExitStack() as stack:
        taken = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in _PORTS]
        return {name: str(port.getsockname()[1]) for name, port in zip(_PORTS, taken, strict=True)}


def _filled(text: str, ports: Mapping[str, str]) -> str:
    for name, port in ports.items():
        text = text.replace(name, port)
    return text
