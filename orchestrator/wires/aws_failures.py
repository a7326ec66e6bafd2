"""What AWS answers if a call fails -> our failure: the codes of its JSON APIs, and those of InvokeEndpoint.

Source of the codes: botocore 1.44 (`sagemaker-runtime`), and "Common Errors" of the SageMaker API reference.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed
from orchestrator.wires.failures import fields_of, from_answer, retry_after, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.wires.failures import Failure

THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedException", "NotAuthorized"})
_REMEDIES = {
    "ExpiredToken": "the credentials have expired: sign in again, or set new ones",
    "ExpiredTokenException": "the credentials have expired: sign in again, or set new ones",
    "RequestExpired": "check this machine's clock",
    "UnrecognizedClientException": "AWS does not know the credentials: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "InvalidClientTokenId": "AWS does not know the credentials: check AWS_PROFILE or AWS_ACCESS_KEY_ID",
    "MissingAuthenticationToken": "the call was not signed: check the credentials",
    "MissingAuthenticationTokenException": "the call was not signed: check the credentials",
    "InvalidSignatureException": "check AWS_SECRET_ACCESS_KEY and this machine's clock",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and this machine's clock",
    "IncompleteSignature": "check the credentials",
    "OptInRequired": "the account has not enabled this region or service",
}
_ACTION = re.compile(r"perform: ([\w-]+:\w+)(?: on resource: (\S+))?")
_NOT_THERE = re.compile(r"not found|could not find|no capacity to process", re.IGNORECASE)
_OF_EVERY_REQUEST = re.compile(r"inference component name header is (?:required|not allowed)", re.IGNORECASE)
_TIMED_OUT = re.compile(r"timed out", re.IGNORECASE)
_TOOLKIT = "InternalServerException"  # the type of every 400 of Hugging Face's toolkit, its own bugs included
_BEHIND = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


def code_of(headers: Mapping[str, str], body: bytes) -> str:
    """Return AWS's name for a failure; empty if the answer has none."""
    named = headers.get("x-amzn-ErrorType") or headers.get("x-amzn-errortype") or (fields_of(body) or {}).get("__type")
    return str(named or "").partition(":")[0].rpartition("#")[2]


def said_in(body: bytes) -> str:
    """Return the message of a failure on one line."""
    message = (fields_of(body) or {}).get("Message")
    return words(message.encode()) if isinstance(message, str) and message else words(body)


def permission_in(said: str) -> str | None:
    """Return the permission that is missing by AWS's own words, with the resource: "sagemaker:X on arn:..."."""
    found = _ACTION.search(said)
    if found is None:
        return None
    return found[1] if found[2] is None else f"{found[1]} on {found[2]}"


def refusal(call: str, code: str, said: str) -> EndpointRefused | None:
    """Return the failure if AWS refuses the credentials or what they may do; None if the code says something else."""
    if code in _DENIED:
        missing = permission_in(said)
        remedy = f"the IAM policy has to allow {missing}" if missing else "check what the IAM policy allows"
    elif code in _REMEDIES:
        remedy = _REMEDIES[code]
    else:
        return None
    refused = EndpointRefused(f"{call} was refused by AWS ({code}: {said}): {remedy}")
    refused.forbidden = True
    return refused


def from_invocation(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure for an answer of InvokeEndpoint other than 200."""
    code, said = code_of(headers, body), said_in(body)
    if (refused := refusal(url, code, said)) is not None:
        return refused
    if code == "ModelError":
        return _from_container(url, headers, fields_of(body) or {}, said)
    if (failure := _from_sagemaker(url, status, code, said, retry_after(headers))) is not None:
        return failure
    return from_answer(url, status, headers, body)


def _from_sagemaker(url: str, status: int, code: str, said: str, wait: float | None) -> Failure | None:
    """Return the failure for what SageMaker itself answers; None if its status says enough."""
    invalid = code in {"ValidationError", "ValidationException"}
    if code == "ModelNotReadyException":
        return EndpointLost(f"{url} is not ready ({said})", starting=True, retry_after=wait)
    if invalid and _NOT_THERE.search(said):
        return EndpointLost(f"{url} is not there ({said})")
    if invalid and _OF_EVERY_REQUEST.search(said):
        return EndpointRefused(f"{url} answered {status} ({said}): check component= of the endpoint")
    if code in THROTTLED:
        return RequestFailed(FailureKind.RATE_LIMITED, said, status=status, retry_after=wait)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        too_large = f"the request is larger than SageMaker takes ({said})"
        return RequestFailed(FailureKind.REJECTED, too_large, status=status)
    return None


def why_not_answering(url: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return why the container did not answer a request, whatever it answered; None if it did.

    Raises `EndpointRefused` if AWS refuses the credentials, as waiting would not help.
    """
    if status == HTTPStatus.OK:
        return None
    code, said = code_of(headers, body), said_in(body)
    if (refused := refusal(url, code, said)) is not None:
        raise refused
    if code == "ModelError" and (original := _original_status(fields_of(body) or {})) and original not in _BEHIND:
        return None
    return f"{code or status}: {said}"


def _from_container(url: str, headers: Mapping[str, str], fields: Mapping[str, object], said: str) -> Failure:
    """Return the failure for what the container answered. The status is 0 if it did not answer."""
    status, message = _original_status(fields), str(fields.get("OriginalMessage") or said)
    if status < HTTPStatus.BAD_REQUEST:
        if _TIMED_OUT.search(said):
            limit = "SageMaker waits 60 s for the container at most"
            return RequestFailed(FailureKind.TIMEOUT, f"{limit} ({said})", status=HTTPStatus.FAILED_DEPENDENCY)
        return RequestFailed(FailureKind.UNAVAILABLE, said, status=HTTPStatus.FAILED_DEPENDENCY)
    content = message.encode()
    failure = from_answer(url, status, headers, content)
    own = fields_of(content) or {}
    if isinstance(failure, RequestFailed) and failure.kind is FailureKind.REJECTED and own.get("type") == _TOOLKIT:
        failure.kind = FailureKind.DUBIOUS
    return failure


def _original_status(fields: Mapping[str, object]) -> int:
    status = fields.get("OriginalStatusCode")
    return status if isinstance(status, int) and not isinstance(status, bool) else 0
