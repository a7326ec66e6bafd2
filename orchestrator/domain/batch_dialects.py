"""The lines of batch files in the formats of other services, in one form, and back.

Source of the shapes: the types of the packages `openai` 3.57, `groq` 1.7, `together` 3.1, `mistralai` 3.7 and
`anthropic` 2.14, of `vllm` 0.33 (`run-batch`), and the services' documentation for ids. docs/batch_dialects.md compares
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestrator.domain.anthropic_messages import chat_answer, chat_request, message_answer, message_request

if TYPE_CHECKING:
    from orchestrator.domain.batch_lines import Route

Dialect: TypeAlias = Literal["openai", "together", "mistral", "anthropic"]
CHAT: Route = "/v1/chat/completions"
_REFUSED = 400
_ROUTES: Mapping[str, Sequence[Route]] = {  # that their batches have, of ours
    "anthropic": (CHAT,),
    "together": (CHAT,),
    "mistral": (CHAT, "/v1/embeddings"),
}
_IDS = {  # of the services that say which they take
    "anthropic": (re.compile(r"[a-zA-Z0-9_-]{1,64}"), "up to 64 letters of a to z, digits, - and _"),
    "together": (re.compile(r".{1,64}", re.DOTALL), "up to 64 characters"),
}


def read_line(line: Mapping[str, Any], route: Route, model: str | None) -> dict[str, object]:
    """Return the columns of a line: `custom_id` and `body`, and of a result also `status_code` and `error`.

    The dialect is known by the line's keys. `body` is that of a request or of an answer, in OpenAI's shape; null in a
    result without an answer. `model`: replaces the one that a request names.
    Raises `ValueError` if the line is neither, or is for another route.
    """
    match line:
        case {"params": Mapping() as params}:
            _check(route, CHAT)
            return _request(line, chat_request(params), model)
        case {"result": {"type": str()} as result}:
            return {"custom_id": line.get("custom_id"), **_result_of(result)}
        case {"response": Mapping() | None} | {"error": Mapping()}:
            return {"custom_id": line.get("custom_id"), **_response_of(line.get("response") or {}, line.get("error"))}
        case {"body": Mapping() as body}:
            _check(route, line.get("url"))
            return _request(line, body, model)
    raise ValueError("has neither a request (body or params) nor a result (response or result)")


def request_line(dialect: Dialect, custom_id: str, route: Route, body: Mapping[str, Any]) -> dict[str, object]:
    """Return the line that asks this of a service. Raises `ValueError` if it cannot be asked there."""
    if route not in _ROUTES.get(dialect, (route,)):
        raise ValueError(f"is for {route}, which {dialect.title()} lacks")
    known, words = _IDS.get(dialect, (None, ""))
    if known is not None and known.fullmatch(custom_id) is None:
        raise ValueError(f"has an id that {dialect.title()} refuses: it takes {words}")
    match dialect:
        case "anthropic":
            return {"custom_id": custom_id, "params": message_request(body)}
        case "mistral":  # the job names the model
            return {"custom_id": custom_id, "body": {name: value for name, value in body.items() if name != "model"}}
        case "together":
            return {"custom_id": custom_id, "body": body}
        case "openai":
            return {"custom_id": custom_id, "method": "POST", "url": route, "body": body}


def anthropic_result(custom_id: str, answer: Mapping[str, Any]) -> dict[str, object]:
    """Return the result line for the body of a chat completion. Raises `ValueError` if it is not one."""
    return {
        "custom_id": custom_id,
        "result": {"type": "succeeded", "message": message_answer(answer, f"msg_{custom_id}")},
    }


def anthropic_failure(custom_id: str, status: int | None, message: str) -> dict[str, object]:
    """Return the result line for a request without an answer."""
    kind = "invalid_request_error" if status is not None and _REFUSED <= status < 500 else "api_error"
    error = {"type": "error", "error": {"type": kind, "message": message}}
    return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}


def _check(route: Route, named: object) -> None:
    """Refuse a request for another route. Azure names it without `/v1`, Together and Mistral not at all."""
    if named is not None and str(named).removeprefix("/v1") != route.removeprefix("/v1"):
        raise ValueError(f"is for {named}, and route is {route}")


def _request(line: Mapping[str, Any], body: Mapping[str, object], model: str | None) -> dict[str, object]:
    named = {} if model is None else {"model": model}
    return {"custom_id": line.get("custom_id"), "body": {**body, **named}}


def _response_of(response: Mapping[str, Any], error: object) -> dict[str, object]:
    status, body = response.get("status_code"), response.get("body")
    if error is None and (not isinstance(status, int) or status < _REFUSED):
        return {"status_code": status, "body": body, "error": None}
    return {"status_code": status, "body": None, "error": body if error is None else error}


def _result_of(result: Mapping[str, Any]) -> dict[str, object]:
    message = result.get("message")
    if result["type"] == "succeeded" and isinstance(message, Mapping):
        return {"status_code": 200, "body": chat_answer(message), "error": None}
    failure = result.get("error")
    inner = failure.get("error") if isinstance(failure, Mapping) else None
    return {"status_code": None, "body": None, "error": inner or {"type": result["type"]}}
