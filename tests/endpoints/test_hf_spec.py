"""Every field with which the real client creates and changes an endpoint is sent by us as the client sends it."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator.app.endpoints import creation
from orchestrator.cli.endpoints.create import create
from orchestrator.cli.endpoints.update import update
from orchestrator.domain.errors import UsageError
from orchestrator.domain.policy import Backoff
from orchestrator.endpoints import EndpointSpec, HuggingFaceEndpoint, hf_calls
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_spec import EndpointChanges
from orchestrator.store import Store
from tests.commands import DEADLINE
from tests.hf_service import HfService, hf_service

pytest.importorskip("huggingface_hub", reason="compares with the real client")

from huggingface_hub import HfApi, InferenceEndpoint, close_session, constants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENTATION = Path(__file__).parents[2] / "docs/hugging_face.md"
WHOLE: dict[str, Any] = {
    "vendor": "aws",
    "region": "us-east-1",
    "accelerator": "gpu",
    "instance_type": "nvidia-l4",
    "instance_size": "x1",
}
# what the client calls differently; None: what we have another way for
NAMES = {
    "custom_image": "image",
    "container_command": "command",
    "container_args": "args",
    "container_registry_username": "registry_username",
    "container_registry_password": "registry_password_env",
    "account_id": None,  # ignored by the client itself
    "name": None,
    "namespace": None,
    "token": None,
}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[HfService]:
    monkeypatch.setattr(hf_calls, "API_TIMEOUTS", ApiTimeouts(DEADLINE, DEADLINE, Backoff(0.01, cap=0.05)))
    with hf_service() as service:
        monkeypatch.setenv("HF_TOKEN", service.token)
        monkeypatch.setenv("ORCHESTRATOR_HF_API_URL", f"{service.url}/v2")
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        monkeypatch.setenv("MY_KEY", "k-e-y")
        yield service


@pytest.fixture
def api(service: HfService, monkeypatch: pytest.MonkeyPatch) -> Iterator[HfApi]:
    """The real client, which can reach nothing but the service."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{service.url}/v2")
    yield HfApi(token=service.token, endpoint=service.url)
    close_session()


def sent(service: HfService, name: str) -> dict[str, Any]:
    """Return the endpoint as the service keeps it, without its name and its moments."""
    return {key: value for key, value in service._endpoints[name].spec.items() if key != "name"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"private_link_account_id": "123", "private_link_region": "eu-west-1"}, None),
        ({"domain": "m.acme.example", "path": "/models/m", "cache_http_responses": True}, None),
        ({"path": "/m", "cache_http_responses": False}, None),
        (
            {
                "custom_image": {"url": "ghcr.io/acme/x:1", "port": 80},
                "container_registry_username": "ann",
                "container_registry_password": "k-e-y",
            },
            {
                "image": {"url": "ghcr.io/acme/x:1", "port": 80},
                "registry_username": "ann",
                "registry_password_env": "MY_KEY",
            },
        ),
        (
            {
                "custom_image": {"vLLM": {"url": "vllm/vllm-openai:v0.23.0", "tensorParallelSize": 2}},
                "container_command": ["vllm"],
                "container_args": ["--x"],
                "env": {"A": "b"},
                "secrets": {"KEY": "k-e-y"},
                "tags": ["a"],
                "scaling_metric": "hardwareUsage",
                "scaling_threshold": 80,
            },
            {
                "image": {"vLLM": {"url": "vllm/vllm-openai:v0.23.0", "tensorParallelSize": 2}},
                "command": ["vllm"],
                "args": ["--x"],
                "env": {"A": "b"},
                "secrets": {"KEY": "MY_KEY"},
                "tags": ["a"],
                "scaling_metric": "hardwareUsage",
                "scaling_threshold": 80,
            },
        ),
    ],
)
async def test_an_endpoint_is_created_as_the_client_creates_it(
    service: HfService, api: HfApi, theirs: dict[str, Any], ours: dict[str, Any] | None
) -> None:
    shared = {"min_replica": 0, "scale_to_zero_timeout": 15, "type": "private", "framework": "pytorch"}
    call = partial(api.create_inference_endpoint, "theirs", repository="org/m", namespace="acme", token=service.token)
    await anyio.to_thread.run_sync(partial(call, **WHOLE, **shared, **theirs))
    spec = EndpointSpec("org/m", **WHOLE, **(theirs if ours is None else ours))
    async with Management.open("acme") as management:
        await management.create(spec.body("ours"))
    assert sent(service, "ours") == sent(service, "theirs")
    assert "k-e-y" not in repr(spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "m.acme.example"},
        {"path": "/models/m", "cache_http_responses": True},
        {"tensor_parallel_size": 4, "data_parallel_size": 2},
        {"tensor_parallel_size": 8, "image": {"sGLang": {"url": "lmsysorg/sglang:1"}}},
        {"image": {"url": "ghcr.io/acme/y:2"}, "args": ["--y"], "tags": ["b"]},
        {"accelerator": "cpu", "instance_type": "intel-spr", "max_replica": 3, "scale_to_zero_timeout": 30},
    ],
)
async def test_an_endpoint_is_changed_as_the_client_changes_it(
    service: HfService, api: HfApi, tmp_path: Path, changes: dict[str, Any]
) -> None:
    image = {"vLLM": {"url": "vllm/vllm-openai:v0.23.0", "maxNumSeqs": 256}}
    for name in ("theirs", "ours"):
        service.add(name, model={"image": image})
    back = {ours: theirs for theirs, ours in NAMES.items() if ours}
    given = {back.get(key, key): new for key, new in changes.items()}
    call = partial(api.update_inference_endpoint, "theirs", namespace="acme", token=service.token)
    await anyio.to_thread.run_sync(partial(call, **given))
    async with Store.open(str(tmp_path / "ledger.db")) as store:
        endpoint = HuggingFaceEndpoint("acme/ours")
        await creation.update(endpoint, EndpointChanges(**changes), store, lambda _line: None, wait=False)
    assert sent(service, "ours") == sent(service, "theirs")


@pytest.mark.parametrize(
    ("kind", "call"),
    [(EndpointSpec, HfApi.create_inference_endpoint), (EndpointChanges, HfApi.update_inference_endpoint)],
)
def test_we_have_every_field_of_the_client(kind: type[Any], call: Callable[..., object]) -> None:
    theirs = {NAMES.get(name, name) for name in inspect.signature(call).parameters} - {"self", None}
    ours = {field.name for field in fields(kind) if field.init and not field.name.startswith("_")}
    more = {"secrets", "type"} if kind is EndpointChanges else set()  # `type` cannot be updated with the client
    assert ours - more == theirs - more


@pytest.mark.parametrize(
    ("changes", "image", "message"),
    [
        (
            {"tensor_parallel_size": 2},
            {"tei": {"url": "u"}},
            "is a setting of the images vLLM and sGLang, not of 'tei'",
        ),
        (
            {"data_parallel_size": 2},
            {"sGLang": {}},
            "dataParallelSize is a setting of the images vLLM, not of 'sGLang'",
        ),
        (
            {"tensor_parallel_size": 2},
            {"vLLM": {"credentials": {"username": "ann"}}},
            "the image has credentials, which the API does not show whole",
        ),
    ],
)
def test_sizes_that_would_be_ignored_or_spoil_the_image_are_refused(
    changes: dict[str, Any], image: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        EndpointChanges(**changes).body(image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"registry_password_env": "MY_KEY"}, "registry_password_env needs registry_username"),
        ({"registry_username": "ann"}, "registry_username is for an image of your own"),
        ({"private_link_account_id": "1"}, "private_link_account_id and private_link_region go together"),
        ({"path": "models"}, "path must begin with /"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EndpointSpec("org/m", **WHOLE, **settings)


async def test_a_password_of_a_registry_is_read_when_the_endpoint_is_created_and_hidden_in_messages(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EndpointSpec("org/m", **WHOLE, image={"url": "x"}, registry_username="ann", registry_password_env="MY_KEY")
    async with Management.open("acme") as management:
        await management.create(spec.body("new"))
        assert management.calls.secrets.hidden_in("cannot log in with k-e-y") == "cannot log in with ***"
    assert spec.variables == {"registry_password": "MY_KEY"}
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError, match="set the environment variable MY_KEY"):
        replace(spec).body("new")


def test_every_function_of_the_client_for_endpoints_is_in_the_documentation() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    functions = [name for name in dir(HfApi) if re.search("inference_(endpoint|catalog)", name)]
    methods = [f"InferenceEndpoint.{name}" for name in vars(InferenceEndpoint) if not name.startswith("_")]
    ours = set(re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE))
    named = {name for cell in ours for name in re.findall(r"`([\w.]+)`", cell)}
    data = {f"InferenceEndpoint.{field.name}" for field in fields(InferenceEndpoint)} | {"InferenceEndpoint.from_raw"}
    assert {*functions, *methods} - data <= named


def test_every_field_of_the_client_is_in_the_documentation_with_its_option() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    for kind, call in ((create, HfApi.create_inference_endpoint), (update, HfApi.update_inference_endpoint)):
        options = {name.rstrip("_").removesuffix("_env") for name in inspect.signature(kind).parameters}
        for theirs in inspect.signature(call).parameters:
            ours = NAMES.get(theirs, theirs)
            if theirs == "self" or ours is None:
                continue
            assert f"`{theirs}`" in text
            option = {"args": "arg", "secrets": "secret", "tags": "tag"}.get(ours, ours).removesuffix("_env")
            assert option in options
