"""python -m orchestrator.endpoints.ray_driver: the Ray driver of one endpoint, a child process of whoever uses it.

It owns the keepers: however it ends, Ray ends them, and they end the workers. It ends with its parent. Only this
process and the keepers import Ray, so neither Ray's threads and signal handlers nor its exits reach a run.

Lines of JSON on standard input: first `{"setup": ...}`, then orders `{"id", "do", "worker", ...}`. On standard output:
answers `{"id", "value"}` or `{"id", "lost"}`, and events `{"event", "worker", ...}`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import re
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
import ray
from ray.exceptions import AuthenticationError, RayError

from orchestrator.domain.placement import room
from orchestrator.endpoints.ray_keeper import Keeper
from orchestrator.parent import readable
from orchestrator.wires.failures import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_REACH = 5.0  # seconds for a TCP connection to the head of the cluster
_ANSWER = 10.0  # seconds for its first bytes, and for its first answer: it may be busy
_SETTINGS = b"\4" + bytes(5)  # a frame of HTTP/2 without its length: the first that either side sends
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS
_LOOK = 2.0  # seconds between two looks at the cluster while workers wait for a place
_OWN_NODE = re.compile(r"node_[0-9a-f]+")  # what Ray calls the type of a node that no autoscaler has started
_NOT_INSTALLED = re.compile(r"No module named '[\w.]+'|failed to import", re.IGNORECASE)
_SHOWN = 300  # characters of an error


def main() -> None:
    """Serve the parent until it is gone."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever Ray prints goes to the log
    asyncio.run(_serve(int(sys.argv[1]), answers))


async def _serve(parent: int, answers: int) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(parent, loop, lines), name="lifeline", daemon=True).start()

    def send(**message: object) -> None:
        os.write(answers, orjson.dumps(message) + b"\n")

    setup = orjson.loads(await lines.get())
    try:
        await asyncio.to_thread(_connect, setup["address"])
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no cluster
        send(event="refused", why=_line(error))
        return
    send(event="connected")
    keepers = _Keepers(setup, send)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keepers.watch_room())
        while True:
            tasks.create_task(keepers.obey(orjson.loads(await lines.get()), tasks))


def _read(parent: int, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """Pass on lines until the parent is gone. Then end at once: Ray notices, and ends the keepers."""
    rest = b""
    while (ready := readable(parent, [0])) is not None:
        if ready:
            if not (content := os.read(0, 1 << 20)):
                break
            *whole, rest = (rest + content).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line)
    os._exit(0)


def _connect(address: str) -> None:
    if "://" not in address and address != "local":
        _check_that_ray_listens(address)
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)


def _check_that_ray_listens(address: str) -> None:
    """Raise an error if Ray is not what listens at the address that it would use: it would try for a minute."""
    from ray._private.services import canonicalize_bootstrap_address, extract_ip_port

    host, port = extract_ip_port(canonicalize_bootstrap_address(address))
    try:
        with socket.create_connection((host, int(port)), _REACH) as head:
            answers = "RAY_USE_TLS" in os.environ or _speaks_http2(head)
    except OSError as error:
        raise ConnectionError(f"cannot connect to {host}:{port} ({reason_of(error)})") from error
    if not (answers and _has_cluster(f"{host}:{port}")):
        raise ConnectionError(f"what listens at {host}:{port} does not answer as Ray does")


def _speaks_http2(head: socket.socket) -> bool:
    """Whether a server of HTTP/2 answers, as gRPC and so the head of a cluster does."""
    head.settimeout(_ANSWER)
    with suppress(OSError), head.makefile("rb") as answer:
        head.sendall(_HELLO)
        return answer.read(9)[3:] == _SETTINGS
    return False


def _has_cluster(address: str) -> bool:
    """Whether a server of gRPC says which cluster it is the head of. Raises an error if it wants another token."""
    answers: list[BaseException | None] = []

    def ask() -> None:
        try:
            ray._raylet.GcsClient(address=address)  # noqa: SLF001 - as the command `ray` does
        except RayError as error:
            answers.append(error)
        else:
            answers.append(None)

    asking = threading.Thread(target=ask, name="first question", daemon=True)  # some answers make it ask for ever
    asking.start()
    asking.join(_ANSWER)
    for error in answers:
        if isinstance(error, AuthenticationError):
            raise error
    return answers == [None]


class _Keepers:
    """The keepers of all workers, by the worker's number."""

    def __init__(self, setup: Mapping[str, Any], send: Any) -> None:
        self._worker = pickle.loads(base64.b64decode(setup["worker"]))  # noqa: S301 - our parent made it
        self._needs: Mapping[str, float] = setup["needs"]
        self._least: int = setup["least"]
        self._grace: float = setup["grace"]
        self._send = send
        self._kind = ray.remote(Keeper).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_restarts=0,  # a lost worker is placed again as a new one, at another address
            max_task_retries=0,
            max_concurrency=100,
            scheduling_strategy="SPREAD",  # the loss of a node then costs the fewest workers
        )
        self._keepers: dict[int, Any] = {}
        self._waiting: set[int] = set()

    async def obey(self, order: Mapping[str, Any], tasks: asyncio.TaskGroup) -> None:
        number = order["worker"]
        match order["do"]:
            case "place":
                self._keepers[number] = keeper = self._kind.remote()
                self._waiting.add(number)
                tasks.create_task(self._keep(number, keeper))
                self._send(id=order["id"], value=None)
            case "release":
                await self._release(number)
                self._send(id=order["id"], value=None)
            case "call":
                try:
                    value = await getattr(self._keepers[number], order["method"]).remote(*order["arguments"])
                except (RayError, KeyError) as error:
                    self._send(id=order["id"], lost=_line(error))
                else:
                    self._send(id=order["id"], value=value)

    async def _keep(self, number: int, keeper: Any) -> None:
        """Start a worker once its keeper is placed, and pass on its reports until it is lost."""
        try:
            opened = await keeper.open.remote(self._worker, number)
            self._waiting.discard(number)
            if (why := opened.get("refused")) is not None:
                self._end(number, keeper, "refused", why)
                return
            self._send(event="placed", worker=number, host=opened["host"])
            while self._holds(number, keeper):
                report = await keeper.report.remote()
                if report["log"] or report["vitals"]:
                    self._send(event="report", worker=number, **report)
        except RayError as error:
            why = str(error)
            if _NOT_INSTALLED.search(why) and number in self._waiting:
                what = "install this package, with the same extras, in the Python of every node"
                self._end(number, keeper, "refused", f"a node cannot run a worker: {_line(error)}; {what}")
            else:
                self._end(number, keeper, "lost", _line(error))

    def _holds(self, number: int, keeper: Any) -> bool:
        return self._keepers.get(number) is keeper

    def _end(self, number: int, keeper: Any, event: str, why: str) -> None:
        """Tell the parent that the keeper is gone, unless the parent has released it."""
        if self._holds(number, keeper):
            del self._keepers[number]
            self._waiting.discard(number)
            ray.kill(keeper)
            self._send(event=event, worker=number, why=why)

    async def _release(self, number: int) -> None:
        """End the worker in order, then its keeper, which frees its place."""
        keeper, waits = self._keepers.pop(number, None), number in self._waiting
        self._waiting.discard(number)
        if keeper is None:
            return
        if not waits:
            with suppress(RayError, TimeoutError):
                await asyncio.wait_for(keeper.pause.remote(), self._grace)
        ray.kill(keeper)

    async def watch_room(self) -> None:
        """Tell the parent why workers wait, as long as any does."""
        while True:
            await asyncio.sleep(_LOOK)
            if self._waiting:
                found = await asyncio.to_thread(self._room)
                self._send(event="room", text=found.text, never=found.never)

    def _room(self) -> Any:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return room(self._needs, self._least, nodes, grows=_grows())


def _grows() -> bool:
    """Whether an autoscaler may start nodes of other sizes."""
    from ray._private.state import state
    from ray.experimental.internal_kv import _internal_kv_get

    if state.get_cluster_config() is not None:
        return True
    report = orjson.loads(_internal_kv_get("__autoscaling_status") or b"{}").get("autoscaler_report") or {}
    return not all(_OWN_NODE.fullmatch(kind) for kind in report.get("active_nodes") or ())


def _line(error: BaseException) -> str:
    """Return the last line of an error's text, in which Ray puts the cause after a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1].rstrip(".") if lines else type(error).__name__)[:_SHOWN]


if __name__ == "__main__":
    main()
