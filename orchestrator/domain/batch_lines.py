"""The input lines of a batch in OpenAI's format, and what may be wrong with them.

Codes and messages are those that the real service was recorded to give. It has no code for a body with
`background`, nor are its names for a custom_id of the wrong type or length, a method and an empty file established.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

Route: TypeAlias = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
ROUTES: tuple[Route, ...] = get_args(Route)
MOST_ERRORS = 1000  # bad lines that are listed; of further ones, only the number is
LONGEST_ID = 512  # characters of a custom_id

_NEEDED: Mapping[Route, str] = {  # beside the model
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
}
_SPOKEN: Mapping[Route, str] = {
    "/v1/chat/completions": "Chat Completions",
    "/v1/completions": "Completions",
    "/v1/embeddings": "Embeddings",
    "/v1/responses": "Responses",
}
_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("custom_id", str, "a string"),
    ("method", str, "a string"),
    ("url", str, "a string"),
    ("body", dict, "an object"),
)
_TYPES = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}


@dataclass(frozen=True, slots=True)
class BatchError:
    """One entry of a batch's `errors`, as the API shows it.

    `line`: counted from 1; None if it concerns the file as a whole.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """What a batch file holds. If there are errors, nothing of it may be asked.

    `total`: the lines that are not blank. `model`: that of the valid lines; None if there are none.
    """

    total: int
    model: str | None
    errors: tuple[BatchError, ...]


def wrong_type(param: str, expected: str, value: object) -> tuple[str, str, str]:
    """Return code, message and parameter for a value of the wrong type; `expected` has its article: "a string"."""
    found = "null" if value is None else _TYPES.get(type(value), "an object")
    return "invalid_type", f"Invalid type for '{param}': expected {expected}, but got {found} instead.", param


def duplicate(custom_id: str, line: int) -> BatchError:
    """Return the error for a line whose `custom_id` an earlier line has."""
    message = (
        f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )
    return BatchError("duplicate_custom_id", message, "custom_id", line)


def inputs_of(request: object, route: Route) -> int:
    """Return how many inputs a line asks about: texts or lists of tokens to be embedded, one for any other route."""
    match request:
        case {"body": {"input": [str() | list(), *_] as inputs}} if route == "/v1/embeddings":
            return len(inputs)
    return 1


def too_many(total: int, inputs: int, most: int) -> BatchError | None:
    """Return the error of a file with so many lines and inputs, if those are too many."""
    if max(total, inputs) <= most:
        return None
    found = f"{total:,} requests" if total > most else f"{inputs:,} embedding inputs"
    return BatchError("too_many_tasks", f"The input file contains {found}; a batch may have at most {most:,}.")


def error_in(request: object, line: int, route: Route, served: Container[str], model: str | None) -> BatchError | None:
    """Return the first thing that is wrong with a line, given as its JSON value; None if nothing is.

    The value is None for a line that is not JSON. `route`: the batch's endpoint. `served`: the models that can be
    asked. `model`: that of the lines before.
    """
    if not isinstance(request, dict):
        return BatchError("invalid_json_line", "This line is not parseable as valid JSON.", None, line)
    found = _wrong_field(request, route) or _wrong_body(request["body"], route)
    found = found or _wrong_model(request["body"]["model"], served, model)
    return None if found is None else BatchError(*found, line)


def _wrong_field(request: Mapping[str, object], route: Route) -> tuple[str, str, str] | None:
    for name, _, _ in _FIELDS:
        if request.get(name) is None:
            return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
    for name, kind, spoken in _FIELDS:
        if not isinstance(request[name], kind):
            return wrong_type(name, spoken, request[name])
    if (method := request["method"]) != "POST":
        return "invalid_value", f"Invalid value: '{method}'. Supported values are: 'POST'.", "method"
    if request["url"] not in {route, route.removeprefix("/v1")}:
        return "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
    return _wrong_length(str(request["custom_id"]))


def _wrong_length(custom_id: str) -> tuple[str, str, str] | None:
    if not custom_id:
        message = "Expected a string with minimum length 1, but got an empty string instead."
        return "string_below_min_length", f"Invalid 'custom_id': string too short. {message}", "custom_id"
    if (length := len(custom_id)) > LONGEST_ID:
        message = f"Expected a string with maximum length {LONGEST_ID}, but got a string with length {length} instead."
        return "string_above_max_length", f"Invalid 'custom_id': string too long. {message}", "custom_id"
    return None


def _wrong_body(body: Mapping[str, object], route: Route) -> tuple[str, str, str] | None:
    if body.get("model") in (None, ""):
        return "invalid_request", "Model parameter is required.", "body.model"
    if not isinstance(body["model"], str):
        return wrong_type("body.model", "a string", body["model"])
    needed = _NEEDED[route]
    if body.get(needed) in (None, "", []):
        return "invalid_request", f"{needed.capitalize()} parameter is required.", f"body.{needed}"
    if body.get("stream"):
        message = f"{_SPOKEN[route]}: Streaming is not supported in the Batch API."
        return "streaming_unsupported", message, "body.stream"
    if body.get("background"):
        message = f"{_SPOKEN[route]}: Background mode is not supported in the Batch API."
        return "invalid_request", message, "body.background"
    return None


def _wrong_model(named: str, served: Container[str], model: str | None) -> tuple[str, str, str] | None:
    if named not in served:
        message = f"The provided model '{named}' is not supported by the Batch API: /v1/models lists those that are."
        return "model_not_found", message, "body.model"
    if model not in {None, named}:
        message = f"The model '{named}' for this request does not match the rest of the batch."
        rule = "Each batch must contain requests for a single model."
        return "mismatched_model", f"{message} {rule}", "body.model"
    return None
