"""RayCluster: our side of the Ray driver, a child process that places workers on a cluster."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson
from anyio import from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token

from orchestrator.domain.errors import EndpointFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.placement import Resources
    from orchestrator.endpoints.ray_keeper import Worker
    from orchestrator.endpoints.server_log import ServerLog

_CONNECT = 60.0  # seconds to reach the cluster
_END = 5.0  # seconds for the driver to end
_DRIVER_ENDED = "the Ray driver has ended, as it does when the cluster's head is gone"
_PAUSE = 20.0  # seconds, besides the grace, within which a worker is ended in order


class PlaceLost(Exception):
    """The worker's place on the cluster is gone, with its process."""


class Placed(Protocol):
    """A worker that waits for a place, or has one."""

    def keep(self, event: Mapping[str, Any]) -> None:
        """Write to disk what an event brings: `placed` at `host`, `report`, `lost`, `refused`. Called in a thread."""
        ...

    def note(self, event: Mapping[str, Any]) -> None:
        """Take note of an event in the event loop: those above but reports, with `why`; `room` with `text`, `never`."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What is placed: the worker, what one needs, and how many the user wants in any case."""

    worker: Worker
    needs: Resources
    least: int
    grace: float


@dataclass(slots=True)
class _Answer:
    ready: anyio.Event = field(default_factory=anyio.Event)
    message: Mapping[str, Any] = field(default_factory=dict)

    def give(self, message: Mapping[str, Any]) -> None:
        self.message = message
        self.ready.set()


class RayCluster:
    """A Ray cluster on which workers are placed, by number. The driver is started with the first of them.

    A thread reads what the driver says, because a control plane has no tasks of its own.
    """

    def __init__(self, address: str, order: Order, log: ServerLog) -> None:
        self._address = address
        self._order = order
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = anyio.Lock()
        self._connected = _Answer()
        self._numbers = count(1)
        self._answers: dict[int, _Answer] = {}
        self._workers: dict[int, Placed] = {}

    async def place(self, number: int, worker: Placed) -> None:
        """Ask for a place for this worker. Raises `EndpointFailed` if there is no cluster."""
        await self._start()
        self._workers[number] = worker
        await self._ask(number, "place")

    async def call(self, number: int, method: str, *arguments: object, within: float | None = None) -> Any:
        """Call a keeper's method. Raises `PlaceLost`, also if there is no answer within so many seconds."""
        with anyio.move_on_after(within):
            return await self._ask(number, "call", method=method, arguments=arguments)
        raise PlaceLost(f"no answer from its node within {within:g} s")

    async def release(self, number: int) -> None:
        """End a worker, and give up its place."""
        self._workers.pop(number, None)
        with suppress(PlaceLost), anyio.move_on_after(self._order.grace + _PAUSE):
            await self._ask(number, "release")

    async def close(self) -> None:
        """End the driver. Ray then ends the keepers, and they end the workers."""
        process, self._process = self._process, None
        if process is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_end, process)

    async def _start(self) -> None:
        async with self._starting:
            if self._process is not None:
                return
            with anyio.CancelScope(shield=True):  # an interrupted start could leave a process behind
                self._process = process = await to_thread.run_sync(self._open)
                self._connected = _Answer()
                reader = threading.Thread(target=self._read, args=(process, current_token()), daemon=True)
                reader.start()
            await self._send(process, self._setup())
            with anyio.move_on_after(_CONNECT):
                await self._connected.ready.wait()
            if self._connected.message.get("event") != "connected":
                why = self._connected.message.get("why") or self._why_silent()
                await self.close()
                raise EndpointFailed(
                    f"there is no Ray cluster at {self._address}: {why}; "
                    "start one with `ray start --head`, or name it with address="
                )

    def _why_silent(self) -> str:
        how = "the Ray driver ended" if self._connected.ready.is_set() else f"no answer within {_CONNECT:g} s"
        return f"{how} (its log is {self._log.path})"

    def _open(self) -> subprocess.Popen[bytes]:
        log, _ = self._log.begin(f"driver for Ray at {self._address}")
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "orchestrator.endpoints.ray_driver", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
                start_new_session=True,  # Ctrl-C must not reach it
            )
        finally:
            os.close(log)

    def _setup(self) -> Mapping[str, object]:
        order = self._order
        return {
            "address": self._address,
            "worker": base64.b64encode(pickle.dumps(order.worker)).decode(),
            "needs": order.needs,
            "least": order.least,
            "grace": order.grace + _PAUSE,
        }

    async def _ask(self, worker: int, do: str, **order: object) -> Any:
        process, number, answer = self._process, next(self._numbers), _Answer()
        if process is None:
            raise PlaceLost(_DRIVER_ENDED)
        self._answers[number] = answer
        try:
            await self._send(process, {"id": number, "do": do, "worker": worker, **order})
            await answer.ready.wait()
        finally:
            self._answers.pop(number, None)
        if "lost" in answer.message:
            raise PlaceLost(answer.message["lost"])
        return answer.message["value"]

    async def _send(self, process: subprocess.Popen[bytes], message: Mapping[str, object]) -> None:
        assert process.stdin is not None
        line = orjson.dumps(message) + b"\n"
        with suppress(OSError):  # the reader notices that it has ended
            await to_thread.run_sync(os.write, process.stdin.fileno(), line)

    def _read(self, process: subprocess.Popen[bytes], loop: EventLoopToken) -> None:
        """Pass on what the driver says until it ends."""
        assert process.stdout is not None
        with process.stdout as lines, suppress(RuntimeError):  # the event loop has ended
            for line in lines:
                message = orjson.loads(line)
                if (worker := self._workers.get(message.get("worker"))) is not None:
                    worker.keep(message)
                if message.get("event") != "report":
                    from_thread.run_sync(self._take, message, token=loop)
            from_thread.run_sync(self._ended, process, token=loop)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "id" in message:
            if (answer := self._answers.get(message["id"])) is not None:
                answer.give(message)
        elif "worker" in message:
            if (worker := self._workers.get(message["worker"])) is not None:
                worker.note(message)
        elif message["event"] == "room":
            for worker in self._workers.values():
                worker.note(message)
        else:
            self._connected.give(message)

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        """Report every place as lost: the keepers ended with the driver."""
        if self._process is process:
            self._process = None
        self._connected.ready.set()
        for answer in self._answers.values():
            answer.give({"lost": _DRIVER_ENDED})
        for worker in self._workers.values():
            worker.note({"event": "lost", "why": _DRIVER_ENDED})


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
