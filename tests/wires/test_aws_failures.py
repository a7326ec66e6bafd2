"""What AWS's answers mean: for one request, for the endpoint, and for the credentials."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed
from orchestrator.wires.aws_failures import code_of, from_invocation, permission_in, why_not_answering

URL = "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/e/invocations"
DENIED = (
    "User: arn:aws:iam::1:user/u is not authorized to perform: sagemaker:InvokeEndpoint on resource: "
    "arn:aws:sagemaker:eu-west-1:1:endpoint/e because no identity-based policy allows the action"
)


def failure(code: str, status: int, message: str = "no", headers: dict[str, str] | None = None, **more: object) -> Any:
    named = {"x-amzn-ErrorType": f"{code}:http://internal.amazon.com/coral/", **(headers or {})}
    return from_invocation(URL, status, named, orjson.dumps({"Message": message, **more}))


def of_the_container(status: int, said: str) -> Any:
    message = f'Received error ({status}) from primary with message "{said}".'
    return failure("ModelError", 424, message, OriginalStatusCode=status, OriginalMessage=said)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, '{"error": "inputs is missing"}', FailureKind.REJECTED),
        (422, "too long", FailureKind.REJECTED),
        (413, "too large", FailureKind.REJECTED),
        (400, '{"code": 400, "type": "InternalServerException", "message": "CUDA error"}', FailureKind.DUBIOUS),
        (424, "out of memory", FailureKind.DUBIOUS),
        (429, "busy", FailureKind.RATE_LIMITED),
        (503, "overloaded", FailureKind.RATE_LIMITED),
        (500, "a bug", FailureKind.UNAVAILABLE),
        (0, "Your invocation timed out while waiting for a response from container primary.", FailureKind.TIMEOUT),
        (0, "Amazon SageMaker could not get a response from the e endpoint.", FailureKind.UNAVAILABLE),
    ],
)
def test_what_the_container_answers_counts_as_if_it_had_answered_directly(
    status: int, said: str, kind: FailureKind
) -> None:
    found = of_the_container(status, said)
    assert isinstance(found, RequestFailed)
    assert found.kind is kind


def test_a_time_out_of_the_container_names_the_limit() -> None:
    assert "SageMaker waits 60 s for the container at most" in str(of_the_container(0, "invocation timed out"))


def test_a_container_without_the_route_refuses_every_request() -> None:
    assert isinstance(of_the_container(404, "no such route"), EndpointRefused)


@pytest.mark.parametrize(
    ("code", "status", "message", "kind"),
    [
        ("ThrottlingException", 400, "Rate exceeded", FailureKind.RATE_LIMITED),
        ("ServiceUnavailable", 503, "try again", FailureKind.RATE_LIMITED),
        ("InternalFailure", 500, "oops", FailureKind.UNAVAILABLE),
        ("InternalDependencyException", 530, "oops", FailureKind.UNAVAILABLE),
        ("ValidationError", 400, "1 validation error detected", FailureKind.REJECTED),
        ("", 413, "Request Entity Too Large", FailureKind.REJECTED),
    ],
)
def test_what_sagemaker_itself_answers(code: str, status: int, message: str, kind: FailureKind) -> None:
    found = failure(code, status, message)
    assert isinstance(found, RequestFailed)
    assert (found.kind, found.status) == (kind, status)


def test_a_body_that_is_too_large_is_said_to_be() -> None:
    assert "larger than SageMaker takes" in str(failure("", 413, "Request Entity Too Large"))


@pytest.mark.parametrize(
    "message", ["Endpoint e of account 1 not found.", "Inference Component has no capacity to process this request."]
)
def test_an_endpoint_that_is_not_there_is_lost(message: str) -> None:
    found = failure("ValidationError", 400, message)
    assert isinstance(found, EndpointLost)
    assert not found.starting


def test_a_model_that_is_being_loaded_is_waited_for() -> None:
    found = failure("ModelNotReadyException", 429, "loading", {"Retry-After": "7"})
    assert isinstance(found, EndpointLost)
    assert (found.starting, found.retry_after) == (True, 7.0)


def test_a_component_that_is_not_named_refuses_every_request() -> None:
    found = failure("ValidationError", 400, "Inference Component Name header is required for endpoints to which ...")
    assert isinstance(found, EndpointRefused)
    assert "check component=" in str(found)


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("AccessDeniedException", DENIED, "has to allow sagemaker:InvokeEndpoint on arn:aws:sagemaker:eu-west-1:1:end"),
        ("AccessDeniedException", "no", "check what the IAM policy allows"),
        ("ExpiredTokenException", "expired", "sign in again"),
        ("UnrecognizedClientException", "invalid", "does not know the credentials"),
        ("InvalidSignatureException", "Signature expired", "this machine's clock"),
    ],
)
def test_credentials_that_are_refused_refuse_every_request(code: str, message: str, remedy: str) -> None:
    found = failure(code, 403, message)
    assert isinstance(found, EndpointRefused)
    assert found.forbidden
    assert remedy in str(found)


def test_a_code_is_in_the_header_or_in_the_body() -> None:
    assert code_of({"x-amzn-ErrorType": "ModelError:http://x/"}, b"") == "ModelError"
    assert code_of({}, b'{"__type": "com.amazonaws.sagemaker#ValidationException"}') == "ValidationException"
    assert code_of({}, b"<html>") == ""
    assert permission_in("no such thing") is None


@pytest.mark.parametrize(("original", "answers"), [(400, True), (500, True), (0, False), (503, False), (502, False)])
def test_the_container_answers_whatever_it_answers_unless_nothing_is_behind_it(original: int, answers: bool) -> None:
    said = {"Message": "m", "OriginalStatusCode": original, "OriginalMessage": "m"}
    reason = why_not_answering(URL, 424, {"x-amzn-ErrorType": "ModelError"}, orjson.dumps(said))
    assert (reason is None) is answers


def test_a_probe_without_permission_is_refused_and_one_without_endpoint_is_not_answered() -> None:
    with pytest.raises(EndpointRefused, match="sagemaker:InvokeEndpoint"):
        why_not_answering(URL, 403, {"x-amzn-ErrorType": "AccessDeniedException"}, orjson.dumps({"Message": DENIED}))
    missing = orjson.dumps({"Message": "Endpoint e of account 1 not found."})
    assert why_not_answering(URL, 400, {"x-amzn-ErrorType": "ValidationError"}, missing) == (
        "ValidationError: Endpoint e of account 1 not found."
    )
    assert why_not_answering(URL, 200, {}, b"[]") is None
