"""RayWorker: the control plane of one worker on a Ray cluster. Its data plane notices that its place is lost."""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import orjson
import psutil
from anyio import to_thread
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, UsageError
from orchestrator.endpoints.http import data_plane
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_data import LocalData
from orchestrator.endpoints.ray_cluster import PlaceLost
from orchestrator.endpoints.reach import why_silent
from orchestrator.endpoints.replica import ReplicaData
from orchestrator.endpoints.vitals_files import vitals_file
from orchestrator.endpoints.worker_place import session_at
from orchestrator.wires.aiohttp_failures import why_not_connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.batching import Limits
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.ray_cluster import RayCluster
    from orchestrator.endpoints.ray_keeper import Worker
    from orchestrator.endpoints.server_log import ServerLog
    from orchestrator.ports import Again

_LOOK = 15.0  # seconds for a keeper's look at its process
_PROBE = 5.0  # seconds for one of ours over the network
_LAST_MOMENTS = 3.0  # seconds to learn how a process ended
_OK = 200


class _Phase(Enum):
    ASLEEP = "not running"
    WAITING = "waiting for a place"
    PLACED = "has a place"
    FAILED = "cannot be placed"


class RayWorker:
    """One worker, on whichever node has room for it. If its place is lost, `resume` asks for another one."""

    terms = None  # it always ends with us
    look_every = 0.25

    def __init__(self, name: str, number: int, cluster: RayCluster, worker: Worker, log: ServerLog, *, of: int) -> None:
        self.name = name
        self._number = number
        self._cluster = cluster
        self._worker = worker
        self._shared = of > 1
        self._copies = _Copies(name, log)
        self._phase = _Phase.ASLEEP
        self._text = "not started"
        self._host = ""
        self._seen: Mapping[str, Any] = {}  # the keeper's last look
        self._asking: set[anyio.CancelScope] = set()

    @property
    def status_text(self) -> str:
        """What the worker is doing and on which node, or what it waits for, or why it was lost."""
        return self._text

    @property
    def installing(self) -> bool:
        """Whether it waits for a place or installs requirements: neither counts towards the startup timeout."""
        return self._phase is _Phase.WAITING or bool(self._seen.get("installing"))

    @property
    def runs(self) -> bool:
        """Whether its process was running at the last look, and its place is not known to be lost."""
        return self._phase is _Phase.PLACED and bool(self._seen.get("runs"))

    @property
    def lost(self) -> bool:
        """Whether its place is known to be lost."""
        return self._phase is not _Phase.PLACED

    def keep(self, event: Mapping[str, Any]) -> None:
        """Copy what the worker reports to this machine. Called in a thread."""
        match event.get("event"):
            case "placed":
                self._copies.begin(event["host"])
            case "report":
                self._copies.add(event["log"], event["vitals"])
            case "lost" | "refused":
                self._copies.end()

    def note(self, event: Mapping[str, Any]) -> None:
        """Take note of what the cluster says about this worker."""
        match event["event"]:
            case "placed":
                self._phase, self._host = _Phase.PLACED, event["host"]
                self._text = f"starting on {self._host}"
            case "room" if self._phase is _Phase.WAITING:
                self._text = event["text"]
                self._phase = _Phase.FAILED if event["never"] else _Phase.WAITING
            case "refused":
                self._leave(_Phase.FAILED, event["why"])
            case "lost":
                where = f" on {self._host}" if self._host else ""
                self._leave(_Phase.ASLEEP, f"lost its place{where}: {event['why']}")

    async def resume(self) -> None:
        """Ask for a place, or start the process again in the place that it has."""
        if await self.state() in {EndpointState.STARTING, EndpointState.AWAKE}:
            return
        if self._phase is _Phase.PLACED:
            await self._call("resume")
            return
        self._phase, self._text = _Phase.WAITING, "waiting for a place"
        with suppress(PlaceLost):  # the driver ended again; `state` says so
            await self._cluster.place(self._number, self)

    async def state(self) -> EndpointState:
        """Return the state of the process on its node. Without a place it is starting, or else paused."""
        if self._phase is _Phase.PLACED and (seen := await self._call("look", within=_LOOK)) is not None:
            self._seen = seen
            self._text = f"{seen['status']} on {self._host}"
            return EndpointState(seen["state"])
        return {_Phase.WAITING: EndpointState.STARTING, _Phase.FAILED: EndpointState.FAILED}.get(
            self._phase, EndpointState.PAUSED
        )

    async def price(self) -> None:
        """Return None: no price is published."""

    async def answers(self) -> bool:
        """Whether the process is ready, and can be reached from here."""
        if await self.state() is not EndpointState.AWAKE:
            return False
        silent = await self._why_silent()
        if silent is not None:
            self._text = f"awake on {self._host}, but it cannot be reached from here: {silent}"
        return silent is None

    async def restart(self) -> None:
        """End the process, so that `resume` starts it again in the same place."""
        await self._call("pause")

    async def pause(self, *, to_zero: bool = False) -> None:
        """End the process, and give up its place."""
        if self._phase is not _Phase.ASLEEP:
            with anyio.CancelScope(shield=True):
                await self._cluster.release(self._number)
                self._leave(_Phase.ASLEEP, "not running")
                await to_thread.run_sync(self._copies.end)

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[RayData]:
        """Open the data plane at the address that the process has now."""
        server, url = self._worker.server, str(self._seen.get("url"))
        if isinstance(server, LocalEndpoint):
            info = self._seen["info"]
            limits = server.limits(info, policy, shared=self._shared)
            async with session_at(url, self._worker.token, policy.timeout) as session:
                shape = server.parameters
                data = LocalData(session, self, policy, limits, shape, bare=server.bare, elsewhere=True, info=info)
                yield RayData(self, data)
        else:
            async with data_plane(URL(url), self._worker.headers, server.wire_for(policy), policy) as over_http:
                yield RayData(self, ReplicaData(self, over_http))

    async def kill(self) -> None:
        """Kill the worker's process."""
        await self._call("kill", within=_LAST_MOMENTS)

    async def is_well(self) -> bool:
        """Whether the health route answers 200 now."""
        return await self._why_silent() is None

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds, or its place is lost."""
        ended = await self._call("ends_within", seconds, within=seconds + _LAST_MOMENTS)
        return ended is None or bool(ended)

    async def how_it_ended(self) -> str:
        """Say how the process ended, or that its place is lost."""
        words = await self._call("how_it_ended", within=_LAST_MOMENTS)
        return f"on {self._host} {words}" if words is not None else self._text

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Raise `EndpointLost` as soon as the place is lost during the block."""
        with anyio.CancelScope() as scope:
            self._asking.add(scope)
            try:
                yield
            finally:
                self._asking.discard(scope)
        if scope.cancelled_caught:
            raise EndpointLost(f"{self.name} {self._text}")

    async def _call(self, method: str, *arguments: object, within: float | None = None) -> Any:
        """Call the keeper. Return None, also for an answer of None, if the place is lost."""
        try:
            return await self._cluster.call(self._number, method, *arguments, within=within)
        except PlaceLost as loss:
            if self._phase is _Phase.PLACED:
                self._leave(_Phase.ASLEEP, f"lost its place on {self._host}: {loss}")
            return None

    def _leave(self, phase: _Phase, text: str) -> None:
        self._phase, self._text, self._seen = phase, text, {}
        for scope in self._asking:
            scope.cancel()

    async def _why_silent(self) -> str | None:
        server, url = self._worker.server, str(self._seen.get("url"))
        if not isinstance(server, LocalEndpoint):
            return await why_silent(URL(url), server.health, self._worker.headers)
        try:
            async with session_at(url, self._worker.token, _PROBE) as session, session.get("/health") as response:
                return None if response.status == _OK else f"its health route answers {response.status}"
        except TimeoutError:
            return f"nothing from {url} within {_PROBE:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return why_not_connected(error) or type(error).__name__


class RayData:
    """The data plane of a worker. Items are not to blame if it is lost with its place."""

    def __init__(self, worker: RayWorker, data: LocalData | ReplicaData) -> None:
        self._worker = worker
        self._data = data
        self.max_in_flight = data.max_in_flight
        self.computed_with = data.computed_with if isinstance(data, LocalData) else {}

    @property
    def limits(self) -> Limits:
        """The limits of the worker or server."""
        return self._data.limits

    @property
    def quiet_until(self) -> float:
        """As the server says."""
        return self._data.quiet_until

    async def metrics(self) -> str | None:
        """Return the server's metrics; a worker of ours has none."""
        return await self._data.metrics()

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Send the requests, as in `DataPlane.ask`. Raises `EndpointLost` at once if the place is lost."""
        try:
            async with self._worker.asking():
                return await self._data.ask(requests, again)
        except EndpointLost as loss:
            if loss.blames_items and self._worker.lost:
                raise EndpointLost(str(loss)) from loss
            raise


class _Copies:
    """Copies of a worker's log and vitals on this machine, for `endpoints logs` and `status`. Its methods block."""

    def __init__(self, name: str, log: ServerLog) -> None:
        self._name = name
        self._log = log
        self._vitals = vitals_file(name, os.getpid())
        self._host = ""
        self._file: int | None = None
        self._one_at_a_time = threading.Lock()

    def begin(self, host: str) -> None:
        """Begin a section of the log for a worker on this host."""
        self.end()
        with self._one_at_a_time, suppress(UsageError, OSError):  # the work does not depend on the log
            self._host = host
            self._file, _ = self._log.begin(f"{self._name} on {host}")

    def add(self, log: str, vitals: Mapping[str, Any] | None) -> None:
        """Add to the log, and replace the vitals."""
        with self._one_at_a_time, suppress(OSError):  # the disk is full
            if self._file is None:
                return
            os.write(self._file, log.encode())
            if vitals is not None:
                own = psutil.Process()
                here = {"endpoint": self._name, "parent": own.pid, "parent_started": own.create_time()}
                aside = Path(f"{self._vitals}.part")
                aside.touch(mode=0o600)
                aside.write_bytes(orjson.dumps({**vitals, **here, "node": self._host}))
                aside.replace(self._vitals)

    def end(self) -> None:
        """End the section, and remove the vitals."""
        with self._one_at_a_time, suppress(OSError):
            if self._file is not None:
                os.close(self._file)
                self._vitals.unlink(missing_ok=True)
            self._file = None
