"""Fixtures for all tests: no blocking calls on the event loop, and on request a real ledger, a workplace, a server."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING

import psutil
import pytest
from anyio import to_thread
from blockbuster import blockbuster_ctx
from coverage import Coverage
from coverage.exceptions import CoverageWarning
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter

from orchestrator.endpoints import http_client
from orchestrator.store import Store
from tests import nursery
from tests.commands import DEADLINE, Workplace
from tests.ledgers import new_ledger
from tests.ray_cluster import ENVIRONMENT as ON_LOOPBACK
from tests.ray_cluster import Nodes, ray_cluster
from tests.s3_service import ENVIRONMENT, S3Service, s3_service
from tests.servers import InferenceServer, inference_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

# no example may fail because the machine is busy
settings.register_profile("busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
TypeAdapter(int)  # the first one looks for plugins on the disk, which must not depend on the order of the tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests of a Ray cluster come first, so that one test process has them all: others would start a second one."""
    items.sort(key=lambda item: "one_ray_cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_event_loop() -> Iterator[None]:
    with blockbuster_ctx("orchestrator") as detector:
        detector.functions["os.path.abspath"].deactivate()  # asks for the working folder; does not wait for a disk
        for name in [name for name in detector.functions if name.startswith("sqlite3.")]:
            detector.functions[name].can_block_in("orchestrator/store/connections.py", "run_here")  # a few rows
        for name in ("os.stat", "os.listdir", "os.scandir", "io.BufferedReader.read", "io.TextIOWrapper.read"):
            # once in a process, when pydantic makes its first schema
            detector.functions[name].can_block_in("pydantic/plugin/_loader.py", "get_plugins")
        detector.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield


@pytest.fixture(autouse=True, scope="session")
def only_the_nursery_measures_coverage_besides_this_process() -> None:
    nursery.alone_measures_coverage()


@pytest.fixture(autouse=True)
def commands_of_unmeasured_tests_measure_no_coverage(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("unmeasured"):
        monkeypatch.setattr(nursery, "_measuring", {})


@pytest.fixture(autouse=True)
def untraced_tests_measure_no_coverage(request: pytest.FixtureRequest) -> Iterator[None]:
    measurement = Coverage.current() if request.node.get_closest_marker("untraced") else None
    if measurement is not None:
        measurement.stop()
    yield
    if measurement is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)  # our modules are imported already
            measurement.start()


@pytest.fixture(autouse=True)
def logs_of_tests_are_not_the_users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(params=["ry", "aiohttp"])
def each_http_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask with either client, where there is a choice."""
    chosen = "aiohttp" if request.param == "aiohttp" else "auto"
    monkeypatch.setattr(http_client, "_chosen", ContextVar("http_client", default=chosen))
    return str(request.param)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    await to_thread.run_sync(new_ledger, tmp_path / "ledger.db")
    async with Store.open(str(tmp_path / "ledger.db")) as opened:
        yield opened


@pytest.fixture(scope="session")
def one_server() -> Iterator[InferenceServer]:
    with inference_server() as server:
        yield server


@pytest.fixture
def server(one_server: InferenceServer) -> InferenceServer:
    one_server.reset()
    return one_server


@pytest.fixture(scope="session")
def one_s3() -> Iterator[S3Service]:
    with s3_service() as service:
        yield service


@pytest.fixture
def s3(one_s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> S3Service:
    """Return an S3 service with one empty bucket, `data`. The environment leads to it."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": one_s3.url}.items():
        monkeypatch.setenv(name, value)
    one_s3.reset()
    return one_s3


@pytest.fixture(scope="module")
def one_ray_cluster() -> Iterator[Nodes]:
    pytest.importorskip("ray")
    with ray_cluster() as cluster:
        cluster.add(2)
        cluster.add(2)
        yield cluster


@pytest.fixture
def nodes(one_ray_cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Return a Ray cluster with two nodes of two CPUs, unless a test has changed them, besides its head."""
    for name, value in ON_LOOPBACK.items():
        monkeypatch.setenv(name, value)
    return one_ray_cluster


@pytest.fixture
def workplace(tmp_path: Path, server: InferenceServer) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path, server.url)
    yield workplace
    _, left = psutil.wait_procs(
        workplace.processes(), timeout=DEADLINE
    )  # a worker checks twice a second whether its parent is alive
    for process in left:
        process.kill()
    assert not left
