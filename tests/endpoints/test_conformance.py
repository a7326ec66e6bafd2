"""Every kind of endpoint passes the suite that third parties run."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import psutil
import pytest

from orchestrator.domain.policy import Backoff, Policy
from orchestrator.domain.terms import Terms
from orchestrator.endpoints import (
    CommandEndpoint,
    HttpEndpoint,
    HuggingFaceEndpoint,
    HuggingFaceJobEndpoint,
    HuggingFaceSpaceEndpoint,
    LocalServer,
    SageMakerEndpoint,
    ServerlessEndpoint,
    api_calls,
    aws_calls,
    hf_calls,
    hf_job_control,
    hf_space_control,
    huggingface,
    sagemaker_control,
)
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.testing import BilledEndpointConformance, EndpointConformance
from orchestrator.wires import HuggingFaceWire, RawJsonWire
from tests.endpoints.test_command import Rig
from tests.endpoints.test_local_server import PROGRAM
from tests.endpoints.test_serverless import served
from tests.engine.scripted import Scripted
from tests.handlers import endpoint_of, handler
from tests.hf_jobs_service import jobs_service
from tests.hf_rules import answer_to
from tests.hf_service import Trouble, hf_service
from tests.hf_spaces_service import spaces_service
from tests.sagemaker_service import KEY, SECRET, sagemaker_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from orchestrator.ports import Endpoint

HANGS = ["sh", "-c", "sleep 60"]


class TestScripted(BilledEndpointConformance):
    requests = ("one", "two")
    answers = ("ONE", "TWO")
    refused = "poison"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        self.scripted = Scripted(terms=Terms("scripted", {"kind": "scripted"}), batch_size=2)
        yield self.scripted

    def revive(self, pause_with: Mapping[str, object]) -> Endpoint:
        assert pause_with == {"kind": "scripted"}
        return self.scripted


class TestHttpEndpoint(EndpointConformance):
    requests = ("one", "two")
    answers = ("ONE", "TWO")
    sleeps = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        async with served() as self.router:
            yield self.endpoint()

    def endpoint(self) -> Endpoint:
        return HttpEndpoint(self.router.url)

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint == self.endpoint()
        await self.router.stop()


class TestServerlessEndpoint(TestHttpEndpoint):
    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def endpoint(self) -> Endpoint:
        return ServerlessEndpoint("acme/m", base_url=self.router.url)


class TestCommandEndpoint(BilledEndpointConformance):
    requests = ("one", "two")
    answers = ("eno", "owt")

    @pytest.fixture(autouse=True)
    def _rig(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        self.rig = Rig(tmp_path_factory.mktemp("rig"))
        yield
        self.kill()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.rig.endpoint(wire=RawJsonWire(body={"inputs": "{request}"}, answer="said"))

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[Endpoint]:
        yield CommandEndpoint("mute", "http://127.0.0.1:9/", resume=HANGS, state=HANGS, pause=HANGS, deadline=0.1)

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint.name == "rig"
        await anyio.to_thread.run_sync(self.kill)

    def kill(self) -> None:
        pid = self.rig.folder / "pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()


class TestHuggingFaceEndpoint(BilledEndpointConformance):
    requests = ("one", "two")
    answers = (answer_to("one"), answer_to("two"))
    policy = Policy(batch_size=2)  # as a list; alone, an answer has a list of its own
    token = "hf_fakeTokenOfTheTests"
    secrets = (token,)

    @pytest.fixture(autouse=True)
    def _service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(
            hf_calls, "API_TIMEOUTS", ApiTimeouts(one=1.0, whole=1.0, backoff=Backoff(first=0.01, cap=0.05))
        )
        monkeypatch.setattr(huggingface, "_BETWEEN_ARMINGS", Backoff(first=0.01, cap=0.02))
        with hf_service() as service:
            self.service = service
            service.add("model")
            monkeypatch.setenv("HF_TOKEN", service.token)
            monkeypatch.setenv("ORCHESTRATOR_HF_API_URL", f"{self.service.url}/v2")
            monkeypatch.setenv("HF_ENDPOINT", self.service.url)
            yield

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield HuggingFaceEndpoint("acme/model")

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[Endpoint]:
        await anyio.to_thread.run_sync(self.service.trouble, Trouble(hang=True))
        yield HuggingFaceEndpoint("acme/model")


class TestHuggingFaceJobEndpoint(BilledEndpointConformance):
    requests = ("one", "two")
    answers = ({"label": "eno"}, {"label": "owt"})
    policy = Policy(batch_size=2)
    secrets = ("hf_fakeTokenOfTheTests", "key-of-the-weights")
    endpoint = HuggingFaceJobEndpoint(
        "acme/labeller", image="acme/server", command=["serve"], flavor="cpu-basic", secrets=["WEIGHTS_KEY"]
    )

    @pytest.fixture(autouse=True)
    def _service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(
            hf_calls, "API_TIMEOUTS", ApiTimeouts(one=1.0, whole=1.0, backoff=Backoff(first=0.01, cap=0.05))
        )
        monkeypatch.setattr(hf_job_control, "LOOK_EVERY", 0.02)
        with jobs_service() as self.service:
            monkeypatch.setenv("HF_TOKEN", self.service.token)
            monkeypatch.setenv("HF_ENDPOINT", self.service.url)
            monkeypatch.setenv("WEIGHTS_KEY", "key-of-the-weights")
            yield

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.endpoint

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[Endpoint]:
        self.service.hangs = True
        yield replace(self.endpoint, secrets=())

    async def lose(self, endpoint: Endpoint) -> None:
        for job in self.service.alive():
            self.service.end(job, "ERROR", "Job timeout")


class TestHuggingFaceJobReplicas(TestHuggingFaceJobEndpoint):
    endpoint = replace(TestHuggingFaceJobEndpoint.endpoint, replicas=2)


class TestHuggingFaceSpaceEndpoint(BilledEndpointConformance):
    requests = ("one", "two")
    answers = ({"label": "eno"}, {"label": "owt"})
    refused: str | None = "poison"
    secrets = ("hf_fakeTokenOfTheTests",)
    endpoint = HuggingFaceSpaceEndpoint("acme/reverser")

    @pytest.fixture(autouse=True)
    def _service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(
            hf_calls, "API_TIMEOUTS", ApiTimeouts(one=1.0, whole=1.0, backoff=Backoff(first=0.01, cap=0.05))
        )
        monkeypatch.setattr(hf_space_control, "LOOK_EVERY", 0.02)
        with spaces_service() as self.service:
            self.space = self.service.add("reverser")
            monkeypatch.setenv("HF_TOKEN", self.service.token)
            monkeypatch.setenv("HF_ENDPOINT", self.service.url)
            yield

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.endpoint

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[Endpoint]:
        self.service.hangs = True
        yield self.endpoint

    async def lose(self, endpoint: Endpoint) -> None:
        self.space.go("SLEEPING")


class TestDockerSpace(TestHuggingFaceSpaceEndpoint):
    refused = None
    policy = Policy(batch_size=2)
    endpoint = HuggingFaceSpaceEndpoint("acme/reverser", wire=HuggingFaceWire(), health="/health")


class TestSageMakerEndpoint(BilledEndpointConformance):
    requests = ("one", "two")
    answers = ({"label": "eno"}, {"label": "owt"})
    refused = "poison"
    policy = Policy(batch_size=2)
    secrets = (KEY, SECRET)
    endpoint = SageMakerEndpoint("eu-west-1/labeller")

    @pytest.fixture(autouse=True)
    def _service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        timeouts = ApiTimeouts(one=1.0, whole=1.0, backoff=Backoff(first=0.01, cap=0.05))
        monkeypatch.setattr(aws_calls, "API_TIMEOUTS", timeouts)
        monkeypatch.setattr(sagemaker_control, "LOOK_EVERY", 0.02)
        monkeypatch.setattr(sagemaker_control, "SETTLING", 0.05)
        monkeypatch.setattr(api_calls, "PROBE_TIMEOUT", 1.0)
        with sagemaker_service() as self.service:
            for name, value in self.service.environment.items():
                monkeypatch.setenv(name, value)
            yield

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield self.endpoint

    @asynccontextmanager
    async def silent(self) -> AsyncIterator[Endpoint]:
        self.service.hangs = True
        yield self.endpoint

    async def lose(self, endpoint: Endpoint) -> None:
        for one in self.service.alive():
            self.service.end(one)


class TestSageMakerComponent(TestSageMakerEndpoint):
    endpoint = SageMakerEndpoint("eu-west-1/shared", component="labeller")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        self.service.add_config("shared", components=True)
        self.service.add("shared").instances = 0
        self.service.add_component("labeller", "shared")
        yield self.endpoint

    async def lose(self, endpoint: Endpoint) -> None:
        component = self.service.components["labeller"]
        component.wanted = component.copies = 0


class TestLocalServer(EndpointConformance):
    requests = ("one", "two")
    answers = ("one", "two")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        wire = RawJsonWire(body={"inputs": "{request}"}, answer="inputs")
        yield LocalServer(PROGRAM, name="small", grace=5.0, wire=wire)

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint.name == "small"
        await anyio.to_thread.run_sync(kill_children, PROGRAM[1])


class TestReplicas(EndpointConformance):
    requests = ("one", "two")
    answers = ("one", "two")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        wire = RawJsonWire(body={"inputs": "{request}"}, answer="inputs")
        yield LocalServer(PROGRAM, name="small", grace=5.0, wire=wire, replicas=2)

    async def lose(self, endpoint: Endpoint) -> None:
        assert endpoint.name == "small"
        await anyio.to_thread.run_sync(kill_children, PROGRAM[1])


class TestLocalEndpointWithAHandler(EndpointConformance):
    requests = ("one", "two")
    answers = ("eno", "owt")

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = handler(tmp_path / "model", "return data['inputs'][::-1]")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        yield await endpoint_of(self.folder)

    async def lose(self, endpoint: Endpoint) -> None:
        del endpoint
        await anyio.to_thread.run_sync(kill_children, "orchestrator.worker")


def kill_children(program: str) -> None:
    """Kill those of this process's descendants that run this program."""
    children = [
        child for child in psutil.Process().children(recursive=True) if any(program in word for word in child.cmdline())
    ]
    assert children
    for child in children:
        child.kill()
