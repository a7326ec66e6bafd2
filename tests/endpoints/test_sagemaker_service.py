"""The fake SageMaker is what boto3 takes it for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import orjson
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.commands import until
from tests.sagemaker_service import Refused, SageMakerService, sagemaker_service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerService]:
    with sagemaker_service() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service


def client(name: str, service: SageMakerService, **keys: str) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return boto3.Session().client(name, endpoint_url=service.url, config=config, **keys)  # boto3's own keeps old keys


def invoked(runtime: Any, name: str, request: object, **more: str) -> Any:
    body = orjson.dumps(request)
    answer = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json", **more)
    return orjson.loads(answer["Body"].read())


def test_an_endpoint_is_created_described_listed_invoked_and_deleted(service: SageMakerService) -> None:
    service.creating = 0.5
    api, runtime = client("sagemaker", service), client("sagemaker-runtime", service)
    created = api.create_endpoint(
        EndpointName="e", EndpointConfigName="labeller", Tags=[{"Key": "team", "Value": "reviews"}]
    )
    assert api.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="in-progress"):
        api.delete_endpoint(EndpointName="e")
    with pytest.raises(ClientError, match="already existing"):
        api.create_endpoint(EndpointName="e", EndpointConfigName="labeller")
    api.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 1, "MaxAttempts": 9})
    found = api.describe_endpoint(EndpointName="e")
    assert (found["EndpointArn"], found["EndpointConfigName"]) == (created["EndpointArn"], "labeller")
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert api.list_tags(ResourceArn=found["EndpointArn"])["Tags"] == [{"Key": "team", "Value": "reviews"}]
    config = api.describe_endpoint_config(EndpointConfigName="labeller")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.g4dn.xlarge"
    assert [one["EndpointName"] for one in api.list_endpoints()["Endpoints"]] == ["e"]
    assert invoked(runtime, "e", {"inputs": "abc"}) == {"label": "cba"}
    logs = (
        client("logs", service).get_paginator("filter_log_events").paginate(logGroupName="/aws/sagemaker/Endpoints/e")
    )
    assert [event["message"] for page in logs for event in page["events"]] == service.log
    api.delete_endpoint(EndpointName="e")
    api.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"Delay": 1, "MaxAttempts": 9})
    assert service.alive() == []
    assert service.endpoints[0].billed > 0
    assert service.signed_as == {"sagemaker", "logs"}


def test_a_failed_endpoint_says_why(service: SageMakerService) -> None:
    service.fails = "The primary container for production variant AllTraffic did not pass the ping health check."
    api = client("sagemaker", service)
    api.create_endpoint(EndpointName="e", EndpointConfigName="labeller")
    until(lambda: api.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Failed")
    assert api.describe_endpoint(EndpointName="e")["FailureReason"] == service.fails


def test_copies_of_an_inference_component_are_changed_and_its_instances_follow(service: SageMakerService) -> None:
    service.add_config("shared", components=True)
    service.add("shared")
    service.add_component("labeller", "shared")
    api, runtime = client("sagemaker", service), client("sagemaker-runtime", service)

    def copies() -> tuple[str, int]:
        found = api.describe_inference_component(InferenceComponentName="labeller")
        return found["InferenceComponentStatus"], found["RuntimeConfig"]["CurrentCopyCount"]

    def instances() -> int:
        found: int = api.describe_endpoint(EndpointName="shared")["ProductionVariants"][0]["CurrentInstanceCount"]
        return found

    api.update_inference_component_runtime_config(
        InferenceComponentName="labeller", DesiredRuntimeConfig={"CopyCount": 1}
    )
    until(lambda: copies() == ("InService", 1))
    listed = api.list_inference_components(EndpointNameEquals="shared")["InferenceComponents"]
    assert [one["InferenceComponentName"] for one in listed] == ["labeller"]
    with pytest.raises(ClientError, match="header is required"):
        invoked(runtime, "shared", {"inputs": "abc"})
    assert invoked(runtime, "shared", {"inputs": "abc"}, InferenceComponentName="labeller") == {"label": "cba"}
    api.update_inference_component_runtime_config(
        InferenceComponentName="labeller", DesiredRuntimeConfig={"CopyCount": 0}
    )
    until(lambda: (copies(), instances()) == (("InService", 0), 0))
    with pytest.raises(ClientError, match="no capacity"):
        invoked(runtime, "shared", {"inputs": "abc"}, InferenceComponentName="labeller")


def test_the_runtime_fails_with_the_exceptions_that_its_clients_know(service: SageMakerService) -> None:
    runtime = client("sagemaker-runtime", service)
    with pytest.raises(runtime.exceptions.ValidationError, match="not found"):
        invoked(runtime, "e", {"inputs": "abc"})
    service.add("e")
    service.container_fails = (503, "busy")
    with pytest.raises(runtime.exceptions.ModelError) as failed:
        invoked(runtime, "e", {"inputs": "abc"})
    assert (failed.value.response["OriginalStatusCode"], failed.value.response["OriginalMessage"]) == (503, "busy")
    service.runtime_fails = Refused("ModelNotReadyException", "the model is being loaded", 429)
    with pytest.raises(runtime.exceptions.ModelNotReadyException):
        invoked(runtime, "e", {"inputs": "abc"})


def test_credentials_are_checked_and_what_they_lack_is_named(service: SageMakerService) -> None:
    wrong = client("sagemaker", service, aws_secret_access_key="another", aws_access_key_id="AKIAFAKEKEYOFTHETESTS")
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        wrong.list_endpoints()
    service.denied.add("sagemaker:ListEndpoints")
    with pytest.raises(ClientError, match=r"AccessDeniedException.*perform: sagemaker:ListEndpoints"):
        client("sagemaker", service).list_endpoints()


def test_moto_tells_of_an_endpoint_in_the_same_words(service: SageMakerService) -> None:
    """What moto implements of these calls answers with the same fields."""
    from moto import mock_aws

    def told(api: Any) -> tuple[set[str], set[str]]:
        api.create_endpoint(EndpointName="e", EndpointConfigName="labeller")
        found = api.describe_endpoint(EndpointName="e")
        until(lambda: api.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService")
        config = api.describe_endpoint_config(EndpointConfigName="labeller")
        return set(found) - {"ResponseMetadata"}, set(config) - {"ResponseMetadata"}

    ours = told(client("sagemaker", service))
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.delenv("AWS_ENDPOINT_URL")
        api = boto3.Session().client("sagemaker")
        api.create_model(ModelName="labeller-model", ExecutionRoleArn="arn:aws:iam::123456789012:role/r")
        variant = {"VariantName": "AllTraffic", "ModelName": "labeller-model", "InitialInstanceCount": 1}
        api.create_endpoint_config(
            EndpointConfigName="labeller", ProductionVariants=[variant | {"InstanceType": "ml.g4dn.xlarge"}]
        )
        theirs = told(api)
    assert ours[0] <= theirs[0]
    assert ours[1] <= theirs[1]
