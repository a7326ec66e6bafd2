"""RayEndpoint on a real cluster passes the suite that third parties run, with workers of ours and with servers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import psutil
import pytest

from orchestrator.endpoints import LocalEndpoint, LocalServer, RayEndpoint
from orchestrator.testing import EndpointConformance
from orchestrator.wires import RawJsonWire
from tests.endpoints.test_local_server import PROGRAM
from tests.handlers import handler
from tests.ray_cluster import answering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.ports import Endpoint
    from tests.ray_cluster import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured, pytest.mark.timeout(900)]  # another cluster may have to end


class TestRayEndpointWithTwoWorkers(EndpointConformance):
    requests = ("one", "two")
    answers = ("eno", "owt")
    refused = "poison"

    @pytest.fixture(autouse=True)
    def _cluster(self, nodes: Nodes, tmp_path: Path) -> None:
        call = "if data['inputs'] == 'poison': raise ValueError('poison')\nreturn data['inputs'][::-1]"
        self.folder = handler(tmp_path / "model", call)
        self.endpoint = RayEndpoint(LocalEndpoint(str(self.folder)), 2, address=nodes.address)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.endpoint

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint.name == "ray:model"
        await anyio.to_thread.run_sync(self.kill)

    def kill(self) -> None:
        workers = answering(self.folder)
        assert workers
        for worker in workers.values():
            worker.kill()


class TestRayEndpointWithAServer(EndpointConformance):
    requests = ("one", "two")
    answers = ("one", "two")

    @pytest.fixture(autouse=True)
    def _cluster(self, nodes: Nodes) -> None:
        wire = RawJsonWire(body={"inputs": "{request}"}, answer="inputs")
        self.cluster = psutil.Process(nodes.process.pid)
        self.endpoint = RayEndpoint(LocalServer(PROGRAM, name="small", grace=5.0, wire=wire), address=nodes.address)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.endpoint

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint.name == "ray:small"
        await anyio.to_thread.run_sync(self.kill)

    def kill(self) -> None:
        servers = [one for one in self.cluster.children(recursive=True) if one.cmdline()[:2] == [*PROGRAM[:2]]]
        assert servers
        for server in servers:
            server.kill()
