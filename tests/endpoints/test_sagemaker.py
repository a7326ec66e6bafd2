"""SageMakerEndpoint: names, states, what is deleted and what is not, signatures, credentials, answers of containers."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointLost,
    EndpointRefused,
    EndpointSilent,
    FailureKind,
    RequestFailed,
    UsageError,
)
from orchestrator.domain.policy import Backoff, Policy
from orchestrator.endpoints import SageMakerEndpoint, aws_calls, endpoint_from, sagemaker_control
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.aws_access import AwsAccess
from orchestrator.testing.endpoints import until_asleep, until_awake
from orchestrator.wires import HuggingFaceWire, OpenAIChatWire, OpenAIEmbeddingsWire, TeiWire, TgiWire
from tests.sagemaker_service import (
    CREATING,
    IN_SERVICE,
    KEY,
    REGION,
    SECRET,
    Refused,
    SageMakerService,
    sagemaker_service,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from orchestrator.wires.wire import Wire

TAG = sagemaker_control.TAG
LABELLER = SageMakerEndpoint("eu-west-1/labeller")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerService]:
    timeouts = ApiTimeouts(one=1.0, whole=1.0, backoff=Backoff(first=0.01, cap=0.05))
    monkeypatch.setattr(aws_calls, "API_TIMEOUTS", timeouts)
    monkeypatch.setattr(sagemaker_control, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(sagemaker_control, "SETTLING", 0.05)
    with sagemaker_service() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service


@asynccontextmanager
async def opened(endpoint: SageMakerEndpoint, policy: Policy | None = None) -> AsyncIterator[Any]:
    """Open the data plane of an endpoint that is in service."""
    async with endpoint.control() as control, control.connect(policy or Policy()) as data:
        yield data


# -- declaring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name", "endpoint"),
    [
        ({"name": "e"}, "e", "e"),
        ({"name": "eu-west-1/e"}, "eu-west-1/e", "e"),
        ({"name": "e", "region": "eu-west-1"}, "eu-west-1/e", "e"),
        ({"name": "e", "region": "eu-west-1", "component": "c"}, "eu-west-1/e/c", "e"),
        ({"name": "eu-west-1/e/c", "component": "c"}, "eu-west-1/e/c", "e"),
        ({"name": "e", "component": "e"}, "e/e", "e"),
    ],
)
def test_a_name_may_have_a_region(settings: dict[str, Any], name: str, endpoint: str) -> None:
    made = SageMakerEndpoint(**settings)
    assert (made.name, made.endpoint) == (name, endpoint)
    assert endpoint_from({"kind": "sagemaker", **settings}) == made


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "e_1"}, "letters, digits and dashes"),
        ({"name": "europe/e"}, "'europe' is not the name of a region, such as eu-west-1"),
        ({"name": "eu-west-1/e", "region": "us-east-1"}, "contradict each other"),
        ({"name": "e", "config": "a b"}, "config is a name"),
        ({"name": "e", "pause": "scale_to_zero"}, "pause must be if_resumed, always or never"),
        ({"name": "e", "copies": 0}, "copies must be at least 1"),
        ({"name": "e", "copies": 2}, "copies= is for an inference component"),
        ({"name": "e", "component": "c", "config": "d"}, "are for an endpoint that is created"),
        ({"name": "e", "tags": {TAG: "x"}}, "is our own"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SageMakerEndpoint(**settings)


def test_the_model_or_what_creates_it_is_its_identity() -> None:
    assert SageMakerEndpoint("e", model="m").identity(Policy())["model"] == "m"
    assert SageMakerEndpoint("us-east-1/e").identity(Policy()) == SageMakerEndpoint("eu-west-1/e").identity(Policy())
    assert SageMakerEndpoint("e", config="c").identity(Policy())["model"] == "c"
    assert SageMakerEndpoint("e", component="c").identity(Policy())["model"] == ["e", "c"]


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (CREATING, EndpointState.STARTING),
        ("Updating", EndpointState.STARTING),
        ("SystemUpdating", EndpointState.STARTING),
        ("RollingBack", EndpointState.STARTING),
        ("OutOfService", EndpointState.STARTING),
        ("Deleting", EndpointState.STARTING),
        ("SomethingNew", EndpointState.STARTING),
        (IN_SERVICE, EndpointState.AWAKE),
        ("Failed", EndpointState.FAILED),
        ("UpdateRollbackFailed", EndpointState.FAILED),
    ],
)
async def test_every_status_has_a_state(service: SageMakerService, status: str, state: EndpointState) -> None:
    endpoint = service.add("labeller")
    endpoint.status, endpoint.changes_at = status, float("inf")
    async with LABELLER.control() as control:
        assert await control.state() is state
        assert control.status_text == status


async def test_without_its_configuration_it_is_gone(service: SageMakerService) -> None:
    async with SageMakerEndpoint("nothing").control() as control:
        assert await control.state() is EndpointState.GONE
        assert control.status_text == "there is neither an endpoint nor an endpoint configuration nothing"
        with pytest.raises(EndpointFailed, match=r"cannot be created: Could not find .*: check config="):
            await control.resume()


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("The primary container did not pass the ping health check. Please check CloudWatch", "endpoints logs"),
        ("Could not find model data at s3://b/m.tar.gz.", "files in S3"),
        ("Failed to pull the image: repository does not exist in ECR", "may pull it"),
    ],
)
async def test_a_failure_has_its_reason_and_a_remedy(service: SageMakerService, reason: str, remedy: str) -> None:
    endpoint = service.add("labeller")
    endpoint.status, endpoint.reason = "Failed", reason
    async with LABELLER.control() as control:
        assert await control.state() is EndpointState.FAILED
    assert control.status_text.startswith(f"Failed: {reason}")
    assert remedy in control.status_text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "is asynchronous"),
        ({"components": True}, "serves inference components, so it cannot be deleted for a pause"),
    ],
)
async def test_an_endpoint_that_cannot_be_used_is_refused_before_it_is_created(
    service: SageMakerService, config: dict[str, Any], said: str
) -> None:
    service.add_config("labeller", **config)
    async with LABELLER.control() as control:
        with pytest.raises(EndpointFailed, match=said):
            await control.state()


async def test_an_endpoint_with_another_configuration_is_refused(service: SageMakerService) -> None:
    service.add("labeller", "labeller-v2")
    async with LABELLER.control() as control:
        with pytest.raises(EndpointFailed, match="has the configuration labeller-v2, not labeller: correct config="):
            await control.state()


async def test_a_component_whose_instances_would_stay_is_refused(service: SageMakerService) -> None:
    service.add_config("shared", components=True, least=1)
    service.add("shared")
    service.add_component("labeller", "shared")
    async with SageMakerEndpoint("shared", component="labeller").control() as control:
        with pytest.raises(EndpointFailed, match="would keep its instances at zero copies"):
            await control.state()
    async with SageMakerEndpoint("shared", component="labeller", pause="never").control() as control:
        assert await control.state() is EndpointState.PAUSED


async def test_a_component_is_asleep_once_its_instances_are_released_or_others_need_them(
    service: SageMakerService,
) -> None:
    service.add_config("shared", components=True)
    service.add("shared")
    service.add_component("labeller", "shared", copies=1)
    service.deleting = 1000.0  # until instances are released
    async with SageMakerEndpoint("shared", component="labeller").control() as control:
        await control.pause()
        with anyio.fail_after(5):
            while "0 of 0 copies" not in control.status_text:
                assert await control.state() is EndpointState.STARTING
        assert "1 instance not released yet" in control.status_text
        service.add_component("other", "shared", copies=1)
        assert await control.state() is EndpointState.PAUSED
        assert "1 instance kept for other" in control.status_text


# -- what is deleted --------------------------------------------------------------------------------------------------


async def test_an_endpoint_without_our_tag_is_deleted_only_if_the_terms_say_always(service: SageMakerService) -> None:
    theirs = service.add("labeller", team="others")
    async with LABELLER.control() as control:
        await control.state()
        with pytest.raises(EndpointRefused, match="was not created by a run, so it is not deleted"):
            await control.pause()
    assert service.alive() == [theirs]
    async with SageMakerEndpoint("labeller", pause="always").control() as control:
        await control.pause()
        assert await until_asleep(control) is EndpointState.PAUSED
    assert service.alive() == []


async def test_an_endpoint_of_others_that_could_not_be_created_again_is_never_deleted(
    service: SageMakerService,
) -> None:
    theirs = service.add("labeller", team="others")
    del service.configs["labeller"]
    async with SageMakerEndpoint("labeller", pause="always").control() as control:
        with pytest.raises(EndpointRefused, match="its configuration labeller is gone"):
            await control.pause()
    assert service.alive() == [theirs]


async def test_the_configuration_is_never_deleted_and_the_terms_say_how_to_pause(service: SageMakerService) -> None:
    endpoint = SageMakerEndpoint("e", config="labeller", pause="always", profile=None)
    async with endpoint.control() as control:
        await control.resume()
        await until_awake(control)
        assert control.terms.endpoint == "eu-west-1/e"
        kept = dict(control.terms.pause_with)
        assert kept == {"kind": "sagemaker", "name": "eu-west-1/e", "config": "labeller", "pause": "always"}
    async with endpoint_from(kept).control() as again:
        await again.pause()
        await until_asleep(again)
    assert (service.alive(), set(service.configs)) == ([], {"labeller"})
    assert not [call for call in service.calls if "Config" in call and call != "DescribeEndpointConfig"]


async def test_a_creation_whose_answer_was_lost_is_noticed(service: SageMakerService) -> None:
    service.lose_answers = 2
    async with LABELLER.control() as control:
        await control.resume()
        await until_awake(control)
    assert len(service.endpoints) == 1
    assert service["labeller"].tags == {TAG: "eu-west-1/labeller"}


async def test_a_creation_that_was_cut_short_is_waited_for_before_it_counts_as_paused(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sagemaker_control, "SETTLING", 1000.0)
    async with LABELLER.control() as control:
        service.hangs = True
        with anyio.move_on_after(0.1):
            await control.resume()
        service.hangs = False
        await control.pause()
        if not service.alive():
            assert await control.state() is EndpointState.STARTING
            assert "may still come into effect" in control.status_text


async def test_a_creation_is_tried_again_while_there_are_too_many_calls(service: SageMakerService) -> None:
    async with LABELLER.control() as control:
        service.throttle = 3
        await control.resume()
        await until_awake(control)


async def test_calls_are_tried_again_while_there_are_too_many(service: SageMakerService) -> None:
    service.throttle = 3
    async with LABELLER.control() as control:
        assert await control.state() is EndpointState.PAUSED
        service.throttle = 10_000
        with pytest.raises(EndpointSilent, match=r"sagemaker:DescribeEndpoint: no proper answer .*Rate exceeded"):
            await control.state()


# -- credentials ------------------------------------------------------------------------------------------------------


async def test_a_permission_that_is_missing_is_named(service: SageMakerService) -> None:
    service.denied = {"sagemaker:AddTags"}
    async with LABELLER.control() as control:
        with pytest.raises(EndpointRefused, match="the IAM policy has to allow sagemaker:AddTags on arn:aws:sagemaker"):
            await control.resume()


async def test_credentials_that_are_refused_are_in_no_message(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.add("labeller")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another/secret+of/the+tests")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzTokenOfTheTests")
    said = []
    async with LABELLER.control() as control:
        with pytest.raises(EndpointRefused, match="InvalidSignatureException") as refused:
            await control.state()
        said.append(str(refused.value))
        with pytest.raises(EndpointRefused) as refused:
            await control.answers()
        said.append(str(refused.value))
        async with control.connect(Policy(keep_error_bodies=True)) as data:
            with pytest.raises(EndpointRefused) as refused:
                await data.ask([b'"one"'])
        said += [str(refused.value), refused.value.body or ""]
        said.append(repr(control.__dict__))
    shown = "\n".join([*said, caplog.text])
    assert "does not match" in shown
    for secret in (KEY, "another/secret", "FwoGZXIvYXdzTokenOfTheTests"):
        assert secret not in shown


async def test_expired_credentials_name_the_remedy(service: SageMakerService) -> None:
    service.expired = True
    async with LABELLER.control() as control:
        with pytest.raises(EndpointRefused, match="sign in again, or set new ones"):
            await control.state()


async def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(UsageError, match=r"pip install 'batch-inference-orchestrator\[aws\]'"):
        async with LABELLER.control():
            pass


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AWS_REGION": None, "AWS_DEFAULT_REGION": None}, "there is no region for SageMaker: set region="),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "there are no AWS credentials: set AWS_PROFILE"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "cannot be used: Partial credentials found in env"),
        ({"AWS_PROFILE": "nobody"}, r"cannot be used: The config profile \(nobody\) could not be found"),
        ({"AWS_ENDPOINT_URL": "http://elsewhere.example"}, "AWS_ENDPOINT_URL must be an https URL"),
    ],
)
async def test_what_is_missing_of_the_settings_is_said(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str | None], said: str
) -> None:
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        async with SageMakerEndpoint("e").control():
            pass


async def test_a_profile_and_a_region_may_be_the_endpoints_own(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(f"[work]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    (tmp_path / "config").write_text(f"[profile work]\nregion = {REGION}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with SageMakerEndpoint("labeller", profile="work").control() as control:
        assert await control.state() is EndpointState.PAUSED
        assert control.terms.endpoint == "eu-west-1/labeller"
        assert control.terms.pause_with["profile"] == "work"


async def test_credentials_are_renewed_before_they_expire(service: SageMakerService) -> None:
    from botocore.credentials import RefreshableCredentials

    renewed = []

    def renew() -> dict[str, str]:
        renewed.append(1)
        expiry = datetime.now(UTC) + timedelta(minutes=1 if len(renewed) < 3 else 600)  # 15 minutes are too few
        return {"access_key": KEY, "secret_key": SECRET, "token": "t" * 20, "expiry_time": expiry.isoformat()}

    found = await AwsAccess.find(REGION, None)
    credentials = RefreshableCredentials.create_from_metadata(renew(), renew, "assume-role")
    access = AwsAccess(REGION, credentials, {"sagemaker": found.url("sagemaker")})
    for _ in range(4):
        headers = await access.signed("sagemaker", "POST", found.url("sagemaker"), b"{}", {})
        assert headers["X-Amz-Security-Token"] == "t" * 20
    assert len(renewed) == 3


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1"])
async def test_addresses_are_those_that_botocores_clients_use(
    service: SageMakerService, monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    import boto3

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    access = await AwsAccess.find(region, None)

    def address(name: str) -> str:
        url: str = boto3.Session().client(name, region_name=region).meta.endpoint_url
        return url

    for name in ("sagemaker", "sagemaker-runtime", "logs"):
        assert access.url(name) == await anyio.to_thread.run_sync(address, name)


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_requests_are_signed_with_either_client(each_http_client: str, service: SageMakerService) -> None:
    service.add("labeller")
    async with opened(LABELLER) as data:
        assert await data.ask(["\N{LATIN SMALL LETTER U WITH DIAERESIS}ber".join('""').encode()]) == [{"label": "rebü"}]
        assert await data.metrics() is None
    assert service["labeller"].asked == ["über"]


async def test_lists_share_a_request_and_nothing_else_is_asked_of_the_runtime(service: SageMakerService) -> None:
    service.add("labeller")
    async with opened(LABELLER, Policy(batch_size=8)) as data:
        assert data.limits.items == 8
        assert await data.ask([b'"ab"', b'"cd"']) == [{"label": "ba"}, {"label": "dc"}]
    assert (service["labeller"].probes, service.signed_as) == (0, {"sagemaker"})


@pytest.mark.parametrize(
    ("wire", "request_", "answer", "value"),
    [
        (HuggingFaceWire(), "a", [{"label": "POSITIVE", "score": 0.5}], [{"label": "POSITIVE", "score": 0.5}]),
        (TgiWire(), "a", [{"generated_text": "b"}], "b"),
        (TgiWire(), "a", {"generated_text": "b"}, "b"),
        (TeiWire("embed"), "a", [[0.5, 1.0]], [0.5, 1.0]),
        (
            OpenAIChatWire("m"),
            {"messages": [{"role": "user", "content": "a"}]},
            {"choices": [{"message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"}]},
            "b",
        ),
        (OpenAIEmbeddingsWire("m"), "a", {"data": [{"index": 0, "embedding": [0.5]}]}, [0.5]),
    ],
)
async def test_each_wire_speaks_with_its_containers(
    service: SageMakerService, wire: Wire, request_: object, answer: object, value: object
) -> None:
    service.add("labeller")
    service.container_says = answer
    async with opened(SageMakerEndpoint("labeller", wire=wire)) as data:
        (found,) = await data.ask([orjson.dumps(request_)])
    assert getattr(found, "value", found) == value


@pytest.mark.parametrize(
    ("fails", "kind"),
    [((503, "busy"), FailureKind.RATE_LIMITED), ((500, "a bug"), FailureKind.UNAVAILABLE), ((400, "no"), "rejected")],
)
async def test_a_failure_of_the_container_is_that_of_the_request(
    service: SageMakerService, fails: tuple[int, str], kind: FailureKind
) -> None:
    service.add("labeller")
    service.container_fails = fails
    async with opened(LABELLER) as data:
        with pytest.raises(RequestFailed) as failed:
            await data.ask([b'"one"'])
    assert failed.value.kind == kind


async def test_throttled_requests_slow_down_and_a_loading_model_is_waited_for(service: SageMakerService) -> None:
    service.add("labeller")
    async with opened(LABELLER) as data:
        service.runtime_fails = Refused("ThrottlingException", "Rate exceeded")
        with pytest.raises(RequestFailed) as failed:
            await data.ask([b'"one"'])
        assert failed.value.kind is FailureKind.RATE_LIMITED
        service.runtime_fails = Refused("ModelNotReadyException", "loading", 429)
        with pytest.raises(EndpointLost, match="is not ready"):
            await data.ask([b'"one"'])


async def test_a_component_is_named_in_every_request(service: SageMakerService) -> None:
    service.add_config("shared", components=True)
    service.add("shared")
    service.add_component("labeller", "shared", copies=1)
    async with opened(SageMakerEndpoint("shared", component="labeller")) as data:
        assert await data.ask([b'"ab"']) == [{"label": "ba"}]
