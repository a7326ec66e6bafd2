"""The bodies of requests, checked; what is wrong is said in OpenAI's words and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator.domain.batch_lines import wrong_type
from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web
    from pydantic_core import ErrorDetails

_Body = TypeVar("_Body", bound=BaseModel)
_Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "an array",
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ExpiresAfter(_Strict):
    """When a file expires, in seconds after its creation: between an hour and 30 days."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2592000)


class CreateFile(_Strict):
    """The fields of the form that creates a file."""

    purpose: str
    expires_after: ExpiresAfter | None = None


class CreateBatch(_Strict):
    """The body that creates a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: _Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class CreateUpload(_Strict):
    """The body that begins an upload in parts."""

    bytes: int = Field(ge=0)
    filename: str
    mime_type: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteUpload(_Strict):
    """The body that completes an upload: its parts in order, and optionally the MD5 of all of them together."""

    part_ids: list[str] = Field(min_length=1)
    md5: str | None = None


async def json_body(request: web.Request, model: type[_Body]) -> _Body:
    """Return the JSON body of a request, checked. Raises `Refused`."""
    try:
        value = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(value, dict):
        code, why, _ = wrong_type("body", "an object", value)
        raise Refused(400, why, code=code)
    return checked(value, model)


def form_body(fields: Mapping[str, str], model: type[_Body]) -> _Body:
    """Return the fields of a form, checked; `name[key]` is the key of an object. Raises `Refused`."""
    values: dict[str, object] = {}
    for name, value in fields.items():
        outer, bracket, key = name.removesuffix("]").partition("[")
        if bracket and isinstance(inner := values.setdefault(outer, {}), dict):
            inner[key] = (
                int(value) if value.isascii() and value.isdecimal() and len(value) < len("2592000000") else value
            )
        else:
            values[outer] = value
    return checked(values, model)


def checked(value: Mapping[str, object], model: type[_Body]) -> _Body:
    """Return a value as a model. Raises `Refused` for the first thing that is wrong with it."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors()[0]) from error


def _refusal(error: ErrorDetails) -> Refused:
    """Return OpenAI's message and code for an error of pydantic."""
    param = ".".join(str(part) for part in error["loc"] if part != "[key]")
    given, limits = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            code, message = "missing_required_parameter", f"Missing required parameter: '{param}'."
        case "extra_forbidden":
            code, message = "unknown_parameter", f"Unknown parameter: '{param}'."
        case "literal_error":
            code, message = "invalid_value", f"Invalid value: '{given}'. Supported values are: {limits['expected']}."
        case "greater_than_equal":
            code = "integer_below_min_value"
            message = f"Invalid '{param}': expected a value >= {limits['ge']}, but got {given} instead."
        case "less_than_equal":
            code = "integer_above_max_value"
            message = f"Invalid '{param}': expected a value <= {limits['le']}, but got {given} instead."
        case "string_too_long":
            code, most = "string_above_max_length", limits["max_length"]
            message = f"Invalid '{param}': expected at most {most} characters, but got {len(given)} instead."
        case "too_long":
            code, most = "object_above_max_properties", limits["max_length"]
            message = f"Invalid '{param}': expected at most {most} properties, but got {len(given)} instead."
        case "too_short":
            code, message = "empty_array", f"Invalid '{param}': expected an array that is not empty."
        case kind:
            code, message, param = wrong_type(param, _EXPECTED[kind], given)
    return Refused(400, message, code=code, param=param)
