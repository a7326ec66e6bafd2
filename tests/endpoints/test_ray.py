"""RayEndpoint without a cluster: what it accepts, how it is written as JSON, and a worker on a port."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from base64 import b64encode
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import orjson
import pytest
from anyio.abc import SocketAttribute

from orchestrator import Job, Policy
from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, RequestFailed, UsageError
from orchestrator.endpoints import (
    CommandEndpoint,
    HttpEndpoint,
    LlamaCpp,
    LocalEndpoint,
    LocalServer,
    RayEndpoint,
    Vllm,
    endpoint_from,
)
from orchestrator.endpoints.local_data import LocalData
from orchestrator.endpoints.ray_keeper import at
from orchestrator.endpoints.ray_worker import RayWorker
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.endpoints.worker_place import PortPlace, session_at
from orchestrator.sources import JsonlSource
from orchestrator.spec import JobSpec
from tests.commands import DEADLINE
from tests.handlers import endpoint_of, handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

    from orchestrator.endpoints.local_control import LocalControl

STATE = ["true"]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            lambda: RayEndpoint(HttpEndpoint("http://gpu:8000/")),
            "an engine such as Vllm, not a HttpEndpoint",
        ),
        (
            lambda: RayEndpoint(CommandEndpoint("c", "http://gpu/", resume=STATE, state=STATE, pause=STATE)),
            "a LocalServer or an engine such as Vllm, not a CommandEndpoint",
        ),
        (lambda: RayEndpoint(Vllm("m", replicas=2)), "use workers= and gpus= of RayEndpoint"),
        (lambda: RayEndpoint(Vllm("m", gpus=[[0], [1]])), "use workers= and gpus= of RayEndpoint"),
        (
            lambda: RayEndpoint(LocalEndpoint("o/m", "fill-mask", devices="all")),
            "use workers= and gpus= of RayEndpoint",
        ),
        (lambda: RayEndpoint(LocalServer(["s"], "http://127.0.0.1:80")), "must begin with http://127.0.0.1:{port}"),
        (lambda: RayEndpoint(Vllm("m"), 0), "workers must be a number from 1, or"),
        (lambda: RayEndpoint(Vllm("m"), (3, 2)), "workers must be a number from 1, or"),
        (lambda: RayEndpoint(Vllm("m"), cast("Any", (2,))), "workers must be a number from 1, or"),
        (lambda: RayEndpoint(Vllm("m"), cast("Any", "4")), "workers must be a number from 1, or"),
        (lambda: RayEndpoint(Vllm("m"), cpus=0.0), "cpus or gpus must be above 0"),
        (lambda: RayEndpoint(Vllm("m"), address="ray://head:10001"), "give that of the cluster's head, as HOST:6379"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_a_remedy(made: Any, why: str) -> None:
    with pytest.raises((UsageError, ValueError), match=why.replace("{", r"\{")):
        made()


def test_answers_stay_valid_when_a_job_moves_to_a_cluster() -> None:
    here = LlamaCpp("org/m:Q4", parameters={"temperature": 0})
    there = RayEndpoint(here, workers=(2, 16), cpus=2)
    assert there.identity(Policy()) == here.identity(Policy())
    assert (there.name, there.least, there.most) == ("ray:m:Q4", 2, 16)
    labels = RayEndpoint(LocalEndpoint("o/m", "text-classification"))
    assert labels.earlier_beginning == '{"label":'
    assert labels.as_earlier().server.bare  # type: ignore[union-attr]  # it is a LocalEndpoint


def test_an_engine_spreads_the_model_over_the_gpus_that_ray_gives_it() -> None:
    server = RayEndpoint(Vllm("m"), gpus=2).server
    assert isinstance(server, LocalServer)
    assert server.command[-2:] == ["--tensor-parallel-size", "2"]
    assert server.gpus is None  # the node's CUDA_VISIBLE_DEVICES says which


def test_a_server_listens_at_its_nodes_address() -> None:
    server = at(RayEndpoint(Vllm("m")).server, "10.0.0.7")  # type: ignore[arg-type]  # it is a LocalServer
    assert server.url == "http://10.0.0.7:{port}"
    assert [*server.command[3:5]] == ["--host", "10.0.0.7"]


def test_a_job_on_a_cluster_is_json(tmp_path: Path) -> None:
    endpoint = RayEndpoint(LocalEndpoint("o/m", "fill-mask"), workers=(2, 16), gpus=0.5)
    spec = JobSpec.of(Job("j", JsonlSource(tmp_path / "rows.jsonl", id="id"), endpoint))
    (form,) = spec.endpoints
    inner = {"kind": "local", "model": "o/m", "task": "fill-mask"}
    assert form == {"kind": "ray", "endpoint": inner, "workers": [2, 16], "gpus": 0.5, "name": "ray:o/m"}
    assert JobSpec.read(orjson.loads(orjson.dumps(spec.as_json())), "spec").job().endpoint == endpoint
    assert endpoint_from(dict(form)) == endpoint


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("auto", r".*[^.]"),  # no cluster is known to this machine
        ("{host}:{port}", r"cannot connect to {host}:{port} \(Connection refused\)"),  # Ray would try for a minute
        ("{host}.invalid:6379", r"cannot connect to {host}.invalid:6379 \(the name does not resolve: .*\)"),
        ("{host}:6379x", ".*6379x.*"),
    ],
)
async def test_a_cluster_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, why: str
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with closing(socket.create_server(("127.0.0.2", 0))) as listening:
        at = {"host": "127.0.0.2", "port": listening.getsockname()[1]}
    address, why = address.format(**at), why.format(**at)
    endpoint = RayEndpoint(LocalServer([sys.executable, "{port}"], model="m"), address=address)
    async with endpoint.control() as control:
        assert await control.state() is EndpointState.PAUSED
        with pytest.raises(
            EndpointFailed, match=rf"^there is no Ray cluster at {address}: {why}; start one"
        ) as refused:
            await control.resume()
    assert "\n" not in str(refused.value)


HTTP2 = bytes(3) + b"\4" + bytes(5)  # a frame with settings
NOT_FOUND = b"\0\0\1\1\5\0\0\0\1\x8d"  # a frame with the headers of the first answer: status 404


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_10.0\r\n", b"", HTTP2])
async def test_a_port_where_another_server_listens_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, banner: bytes
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))

    async def greet(client: SocketStream) -> None:
        async with client:
            await client.send(banner)
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # it may leave before it has read all
                while asked := await client.receive():
                    if banner == HTTP2 and b"application/grpc" in asked:
                        await client.send(NOT_FOUND)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.2")
    address = f"127.0.0.2:{listener.extra(SocketAttribute.local_port)}"
    endpoint = RayEndpoint(LocalServer([sys.executable, "{port}"], model="m"), address=address)
    async with listener, anyio.create_task_group() as tasks, endpoint.control() as control:
        tasks.start_soon(listener.serve, greet)
        why = f"what listens at {address} does not answer as Ray does"  # Ray would try for a minute
        with pytest.raises(EndpointFailed, match=rf"^there is no Ray cluster at {address}: {why}; start one"):
            await control.resume()
        tasks.cancel_scope.cancel()


async def test_without_ray_a_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.endpoints.ray_endpoint.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"pip install 'batch-inference-orchestrator\[ray\]'"):
        async with RayEndpoint(LocalServer(["s", "{port}"])).control():
            pass


@asynccontextmanager
async def listening(model: Path, token: str) -> AsyncIterator[tuple[LocalControl, PortPlace]]:
    place = PortPlace("127.0.0.1", token)
    control = (await endpoint_of(model)).worker(place)
    try:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while not await control.answers():
                await anyio.sleep(0.02)
        yield control, place
    finally:
        await control.pause()


async def test_a_worker_on_a_port_answers_only_clients_with_its_token(tmp_path: Path) -> None:
    model = await anyio.to_thread.run_sync(handler, tmp_path / "model", "return data['inputs'][::-1]")
    async with listening(model, "right") as (control, place):
        for token in ("wrong", ""):
            async with session_at(place.url, token, DEADLINE) as session:
                for method, route in (("GET", "/health"), ("POST", "/batch"), ("POST", "/"), ("GET", "/none")):
                    async with session.request(method, route, data=b'{"inputs":["a"]}') as response:
                        assert response.status == 401
                        assert "right" not in await response.text()
        async with control.connect(Policy()) as data:
            assert await data.ask([b'"abc"']) == ["cba"]


async def test_files_of_requests_travel_with_them_and_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_worker = tmp_path / "tmp"
    of_worker.mkdir()
    monkeypatch.setenv("TMPDIR", str(of_worker))
    call = "import tempfile, os\nreturn [data['inputs'].decode(), len(os.listdir(tempfile.gettempdir()))]"
    model = await anyio.to_thread.run_sync(handler, tmp_path / "model", call)
    note, content = tmp_path / "note.bin", b"by value"
    note.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    file = {"$file": str(note), "sha256": sha256, "content_type": "application/octet-stream"}
    async with listening(model, "token") as (control, place), session_at(place.url, "token", DEADLINE) as session:
        data = LocalData(session, control, Policy(), Limits(1), {}, bare=False, elsewhere=True)
        assert await data.ask([orjson.dumps(file)]) == [[content.decode(), 1]]
        sent = {"inputs": [{**file, "$file": "/nowhere/note.bin"}], "files": {sha256: b64encode(content).decode()}}
        async with session.post("/batch", data=orjson.dumps(sent)) as response:
            assert (await response.json())["answers"][0]["output"] == [content.decode(), 1]
        assert not os.listdir(of_worker)  # noqa: PTH208 - only whether there is anything
        note.write_bytes(b"changed")
        with pytest.raises(RequestFailed, match="has changed since it was ingested"):
            await data.ask([orjson.dumps(file)])


def test_a_full_disk_does_not_keep_the_driver_from_being_heard(tmp_path: Path) -> None:
    (tmp_path / "small.log").symlink_to("/dev/full")
    worker = RayWorker("small", 1, cast("Any", None), cast("Any", None), ServerLog(tmp_path / "small.log"), of=1)
    worker.keep({"event": "placed", "host": "127.0.0.1"})
    worker.keep({"event": "report", "log": "loading", "vitals": None})
