"""Keeper: the Ray actor that holds one worker or server process on its node. Requests do not pass through it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import orjson
from anyio import to_thread

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.devices import Seat
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_control import LocalControl
from orchestrator.endpoints.replica import SUPERVISOR, Replica, program
from orchestrator.endpoints.vitals_files import vitals_file
from orchestrator.endpoints.worker_place import PortPlace
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.endpoints.local_server import LocalServer

LOOPBACK = "127.0.0.1"  # in a server's command and URL it stands for the node's address
_REPORT = 1.0  # seconds between two reports
_MOST_LOG = 65_536  # bytes of the log in one report
_LAST_MOMENTS = 5.0  # seconds that the outer supervisor waits longer than the inner one


@dataclass(frozen=True, slots=True)
class Worker:
    """What a keeper is to start. `contents`: of the model and the imports, which must be the same on every node.

    `dtype`: of a `LocalEndpoint`, chosen on this machine, since the answers of all nodes must be alike.
    `token`: what our worker asks of its clients. `headers`: what a foreign server asks of them.
    """

    server: LocalEndpoint | LocalServer
    contents: Mapping[str, object]
    dtype: str
    token: str
    headers: Mapping[str, str]
    version: str = __version__


def contents_of(server: LocalEndpoint | LocalServer) -> Mapping[str, object]:
    """Return what identifies the files that a worker loads. Reads them."""
    identity = server.identity(Policy())
    return {name: identity[name] for name in ("model", "imports") if name in identity}


class Keeper:
    """Starts the process, watches it, and ends it. The process ends with this one, however this one ends."""

    def __init__(self) -> None:
        self._control: LocalControl | Replica
        self._place: PortPlace | None = None
        self._vitals: Path | None = None
        self._log: Path
        self._read = 0  # bytes of the log

    async def open(self, worker: Worker, number: int) -> dict[str, str]:
        """Start worker `number`. Return the node's address, or as `refused` why it cannot run on this node."""
        import ray

        host, node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()[:8]
        try:
            await to_thread.run_sync(self._prepare, worker, host, f"{node}-{number}")
            await self._control.resume()
        except OrchestratorError as failure:
            return {"refused": f"on node {host}: {failure}"}
        return {"host": host}

    def _prepare(self, worker: Worker, host: str, seat: str) -> None:
        if worker.version != __version__:
            raise OrchestratorError(f"orchestrator {__version__} is installed, not {worker.version} as here")
        server = replace(worker.server)  # finds the model again, where it is on this node
        if contents_of(server) != worker.contents:
            raise OrchestratorError("its files of the model or of imports= are not those of this machine: copy them")
        if isinstance(server, LocalEndpoint):
            self._place = PortPlace(host, worker.token)
            # a name of its own on each node: nodes may share the folder of logs
            own_seat = Seat(seat, server.device, None, server.threads or 1)
            server = replace(server, seat=own_seat).computing_in(worker.dtype)
            self._control = server.worker(self._place)
            self._vitals = vitals_file(server.name, os.getpid())
        else:
            server = replace(at(server, host), name=f"{server.name}@{seat}")
            self._control = _supervised_twice(server, worker.headers)
        self._log = server.log().path
        with suppress(OSError):
            self._read = self._log.stat().st_size

    async def look(self) -> dict[str, object]:
        """Return how the process is, and where it answers."""
        control = self._control
        state = await control.state()
        return {
            "state": str(state),
            "status": control.status_text,
            "installing": control.installing,
            "url": self._place.url if self._place else getattr(control, "url", ""),
            "info": {} if isinstance(control, Replica) else dict(control.info),
            "runs": control.runs,
        }

    async def resume(self) -> None:
        """Start the process again unless it is running."""
        await self._control.resume()

    async def pause(self) -> None:
        """End the process, and what it has started."""
        await self._control.pause()

    async def kill(self) -> None:
        """Kill our worker, for example because it hangs."""
        if isinstance(self._control, LocalControl):
            await self._control.kill()

    async def ends_within(self, seconds: float) -> bool:
        """Whether a server's process ends within so many seconds."""
        return isinstance(self._control, Replica) and await self._control.ends_within(seconds)

    async def how_it_ended(self) -> str:
        """Say how the process ended, with its last words."""
        return await self._control.how_it_ended()

    async def report(self) -> dict[str, object]:
        """Return, after a second, what the process has written to its log since, and its vitals if it reports any."""
        await anyio.sleep(_REPORT)
        return await to_thread.run_sync(self._reported)

    def _reported(self) -> dict[str, object]:
        log, vitals = "", None
        with suppress(OSError), self._log.open("rb") as file:
            self._read = self._read if self._read <= file.seek(0, os.SEEK_END) else 0
            file.seek(self._read)
            content = file.read(_MOST_LOG)
            self._read += len(content)
            log = content.decode(errors="replace")
        with suppress(OSError, ValueError):
            vitals = orjson.loads(self._vitals.read_bytes()) if self._vitals else None
        return {"log": log, "vitals": vitals}


def at(server: LocalServer, host: str) -> LocalServer:
    """Return the server with this address in place of 127.0.0.1."""
    return replace(
        server,
        command=[word.replace(LOOPBACK, host) for word in server.command],
        url=server.url.replace(LOOPBACK, host),
        env={name: value.replace(LOOPBACK, host) for name, value in server.env.items()},
    )


def _supervised_twice(server: LocalServer, headers: Mapping[str, str]) -> Replica:
    """Return the control plane of a server under two supervisors.

    When Ray ends this actor, it kills the actor's child, which is the outer one. The inner one then ends the server and
    everything that it has started.
    """
    path = program(server.command)
    if path is None:
        raise OrchestratorError(
            f"there is no program {server.command[0]!r}; install it on every node, or give its path"
        )
    inner = [sys.executable, "-I", "-S", str(SUPERVISOR), str(server.grace), "0", path]
    replica = server.replica(1, path, headers)
    return replace(replica, command=[*inner, *server.command[1:]], grace=server.grace + _LAST_MOMENTS)
