"""What a batch gives back, in OpenAI's format: output lines, error lines, and the usage of all answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

from orchestrator.domain.answer import tokens_of
from orchestrator.domain.batch import BatchUsage
from orchestrator.domain.json_values import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

UnaskedBecause: TypeAlias = Literal["failed", "expired", "cancelled"]
_OK = 200
_SERVER_ERROR = 500
_ENDS_OF_LINES = {
    ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"
}  # to readers that split text into lines
_UNASKED: Mapping[UnaskedBecause, str] = {
    "failed": "This request was not executed because the batch failed.",
    "expired": "This request could not be executed before the completion window expired.",
    "cancelled": "This request was not executed because the batch was cancelled.",
}


def usage_in(answer: object) -> BatchUsage:
    """Return the tokens that the body of a response reports, under the names of chats or of responses; else 0."""
    usage = _inside(answer, "usage")
    inside, outside = ("input_tokens", "output_tokens")
    if "prompt_tokens" in usage:
        inside, outside = ("prompt_tokens", "completion_tokens")
    return BatchUsage(
        input_tokens=tokens_of(usage.get(inside)) or 0,
        cached_tokens=tokens_of(_inside(usage, f"{inside}_details").get("cached_tokens")) or 0,
        output_tokens=tokens_of(usage.get(outside)) or 0,
        reasoning_tokens=tokens_of(_inside(usage, f"{outside}_details").get("reasoning_tokens")) or 0,
    )


def output_line(request_id: str, custom_id: str, answer: str) -> str:
    """Return the line of an answered request. `answer`: the body of the response, as JSON on one line."""
    return _line(request_id, custom_id, _response(request_id, _OK, answer), "null")


def refused_line(
    request_id: str, custom_id: str, *, kind: str, status: int | None, message: str, body: str | None
) -> str:
    """Return the line of a request that failed for good.

    If the server refused it, the line has a `response` with the server's status and body. If no answer came, or one
    with a 200 that is not an answer, it has an `error` with the cause, since readers take a 200 for an answer.
    """
    if status is None or status == _OK:
        return _line(request_id, custom_id, "null", json.dumps({"code": kind, "message": message}))
    shown = _as_object(body)
    if shown is None:
        said = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
        shown = json.dumps({"error": {"message": body or message, "type": said, "param": None, "code": kind}})
    return _line(request_id, custom_id, _response(request_id, status, shown), "null")


def unasked_line(request_id: str, custom_id: str, ended_as: UnaskedBecause) -> str:
    """Return the line of a request that has no answer because its batch ended early."""
    error = json.dumps({"code": f"batch_{ended_as}", "message": _UNASKED[ended_as]})
    return _line(request_id, custom_id, "null", error)


def _line(request_id: str, custom_id: str, response: str, error: str) -> str:
    name = json.dumps(custom_id)
    return f'{{"id": "batch_req_{request_id}", "custom_id": {name}, "response": {response}, "error": {error}}}\n'


def _response(request_id: str, status: int, body: str) -> str:
    escaped = body if body.isascii() else body.translate(_ENDS_OF_LINES)
    return f'{{"status_code": {status}, "request_id": "req_{request_id}", "body": {escaped}}}'


def _inside(value: object, name: str) -> Mapping[str, object]:
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _as_object(body: str | None) -> str | None:
    """Return a server's body on one line if it is a JSON object; None if it is anything else."""
    try:
        value = json.loads(body or "", parse_constant=_no_number)
        return one_line(body or "") if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
