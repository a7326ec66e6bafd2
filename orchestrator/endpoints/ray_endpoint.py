"""RayEndpoint: what we would start on this machine, started on the nodes of a Ray cluster instead.

Each member is a worker number with a place of its own or none:

    not running -> waiting for a place -> on a node (its process: starting, awake ...) -> not running
                      (never: failed)          place lost: EndpointLost, and resume asks for another place

The run's child `ray_driver.py` is the only process beside the actors that imports Ray; it owns one actor
(`ray_keeper.py`) for each place. A keeper holds the same `LocalControl` or `Replica` that we use on this machine, and
says at each look where its process answers. `ray_cluster.py` speaks to the driver in lines of JSON, `ray_worker.py`
is the member, and requests go directly from its data plane to the node. Ray restarts nothing: `resume` does. Waiting
for a place counts as installing. Wires stay on this machine, which alone asks. When Ray ends an actor, it kills the
actor's child, so a foreign server has a second supervisor below the first.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from yarl import URL

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.http import bearer
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_server import LocalServer
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.ray_cluster import Order, RayCluster
from orchestrator.endpoints.ray_keeper import LOOPBACK, Worker, contents_of
from orchestrator.endpoints.ray_worker import RayWorker
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.ports import ChecksRequests, ChoosesByMachine
from orchestrator.wires.huggingface import HuggingFaceWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.ports import Endpoint

_GRACE = 5.0  # seconds from SIGTERM to SIGKILL of our own worker


@dataclass(frozen=True, slots=True)
class RayEndpoint:
    """A model on the nodes of a Ray cluster. Ray only places the workers: items and answers do not pass through it.

    `endpoint`: a `LocalEndpoint`, a `LocalServer`, or an engine such as `Vllm`. Its answers are the same, so a job that
    moves to a cluster keeps those that it has. In a server's command and URL, 127.0.0.1 stands for the node's address.
    `workers`: at most so many, or (least, most). The run begins with the first one that is up, and each joins when the
    cluster has room for it. If the cluster can never hold the least (otherwise 1), the run fails at once.
    `cpus`, `gpus`: what each worker reserves, as Ray counts them.
    `address`: the cluster's head, as HOST:6379; "auto" is that of the cluster that this machine belongs to.
    `name`: by default "ray:" and the model's name.
    """

    endpoint: Endpoint
    workers: int | tuple[int, int] = 1
    _: KW_ONLY
    gpus: float = 0.0
    cpus: float = 1.0
    address: str = "auto"
    name: str = ""
    server: LocalEndpoint | LocalServer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        match self.workers:
            case int() | (int(), int()) if 1 <= self.least <= self.most:
                pass
            case _:
                raise ValueError(f"workers must be a number from 1, or (least, most), not {self.workers!r}")
        if self.address.startswith("ray://"):
            raise ValueError(
                f"{self.address} is an address of Ray Client: give that of the cluster's head, as HOST:6379, "
                "on a machine of the cluster"
            )
        if not (self.cpus >= 0 and self.gpus >= 0 and self.cpus + self.gpus > 0):
            raise ValueError("a worker needs a part of the cluster: cpus or gpus must be above 0")
        for name in ("cpus", "gpus"):  # 1 and 1.0 have the same JSON form
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "server", _placeable(self.endpoint, self.cpus, self.gpus))
        object.__setattr__(self, "name", self.name or f"ray:{self.server.name.removeprefix('local:')}")

    @property
    def least(self) -> int:
        """The number of workers for which the cluster must have room."""
        return 1 if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """The number of workers that are used if there is room."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def startup_timeout(self) -> float:
        """The endpoint's own; the wait for a place does not count."""
        return self.endpoint.startup_timeout

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the endpoint's own identity."""
        return self.endpoint.identity(policy)

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the server's wire cannot send this request, or None if it can."""
        if not isinstance(self.endpoint, ChecksRequests):
            return None
        return await self.endpoint.unsendable(request, policy)

    @property
    def earlier_beginning(self) -> str | None:
        """How answers of earlier releases begin, as the endpoint says."""
        return self.endpoint.earlier_beginning if isinstance(self.endpoint, LocalEndpoint) else None

    def as_earlier(self) -> RayEndpoint:
        """Return a copy whose answers have the form of earlier releases."""
        return replace(self, endpoint=self.endpoint.as_earlier()) if isinstance(self.endpoint, LocalEndpoint) else self

    def choosing_as_in(self, earlier: Sequence[Mapping[str, object]], policy: Policy) -> RayEndpoint:
        """Return the same endpoint with what earlier runs with these identities have chosen."""
        if not isinstance(self.endpoint, ChoosesByMachine):
            return self
        return replace(self, endpoint=self.endpoint.choosing_as_in(earlier, policy))

    def choice(self) -> str | None:
        """Return what was chosen for this machine, and holds for every node."""
        return self.endpoint.choice() if isinstance(self.endpoint, ChoosesByMachine) else None

    def log(self, replica: int = 1) -> ServerLog:
        """Return this machine's copy of the log of a worker, counted from 1."""
        return ServerLog.of(self.name, replica)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[RayWorker | MemberGroup[RayWorker]]:
        """Yield the control plane. No worker outlives the block. Raises `UsageError` if Ray is not installed."""
        if await to_thread.run_sync(find_spec, "ray") is None:
            raise UsageError(f"endpoint {self.name} needs Ray: pip install 'batch-inference-orchestrator[ray]'")
        token_env = self.server.token_env if isinstance(self.server, LocalServer) else None
        contents = await to_thread.run_sync(contents_of, self.server)
        dtype = await to_thread.run_sync(getattr, self.endpoint, "computed_dtype", "")
        worker = Worker(self.server, contents, dtype, token_urlsafe(32), bearer(token_env, self.name))
        grace = self.server.grace if isinstance(self.server, LocalServer) else _GRACE
        order = Order(
            replace(worker, server=_without_wire(self.server)), {"CPU": self.cpus, "GPU": self.gpus}, self.least, grace
        )
        cluster = RayCluster(self.address, order, ServerLog.of(f"{self.name} driver"))
        made = partial(RayWorker, cluster=cluster, worker=worker, of=self.most)
        workers = [
            made(self.name if self.most == 1 else f"{self.name} worker {number}", number, log=self.log(number))
            for number in range(1, self.most + 1)
        ]
        control = workers[0] if self.most == 1 else MemberGroup(workers)
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await control.pause()
                finally:
                    await cluster.close()


def _placeable(endpoint: Endpoint, cpus: float, gpus: float) -> LocalEndpoint | LocalServer:
    """Return what one worker runs. Raises `UsageError` if the endpoint cannot run on another machine."""
    if isinstance(endpoint, LocalEndpoint):
        if endpoint.devices is not None or endpoint.workers_per_device > 1:
            raise UsageError(
                "devices= and workers_per_device= are for one machine: use workers= and gpus= of RayEndpoint"
            )
        placed = replace(endpoint, threads=endpoint.threads or max(1, int(cpus)))
        return placed.as_earlier() if endpoint.bare else placed
    if not isinstance(endpoint, LocalServer | Engine):
        raise UsageError(
            f"RayEndpoint starts a LocalEndpoint, a LocalServer or an engine such as Vllm, "
            f"not a {type(endpoint).__name__}"
        )
    if (endpoint.replicas or 1) > 1 or endpoint.gpus is not None:
        raise UsageError("replicas= and gpus= of a server are for one machine: use workers= and gpus= of RayEndpoint")
    server = endpoint if isinstance(endpoint, LocalServer) else _engine_on(endpoint, int(gpus)).server
    server = replace(server, gpus=None)  # Ray says which GPUs the process sees
    if URL(server.url.replace("{port}", "1")).host != LOOPBACK or "{port}" not in server.url:
        raise UsageError(
            f"endpoint {server.name}: its url must begin with http://{LOOPBACK}:{{port}}, which stands for an address "
            "of the node that it is placed on"
        )
    return server


def _without_wire(server: LocalEndpoint | LocalServer) -> LocalEndpoint | LocalServer:
    """Return what a node starts. Only this machine sends requests, and a wire may be a class of the job's file."""
    return replace(server, wire=HuggingFaceWire()) if isinstance(server, LocalServer) else server


def _engine_on(engine: Engine, gpus: int) -> Engine:
    """Return the engine, which spreads the model over so many GPUs if it can."""
    return replace(engine, gpus=[list(range(gpus))]) if gpus > 1 else engine
