from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.domain.batch_lines import LONGEST_ID, ROUTES, BatchError, error_in

if TYPE_CHECKING:
    from orchestrator.domain.batch_lines import Route

CHAT: Route = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
GOOD: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": CHAT, "body": BODY}
SERVED = {"m", "other"}
NEEDED = {"messages": [1], "prompt": "p", "input": "i"}


def error(request: object, model: str | None = None) -> BatchError | None:
    return error_in(request, 7, CHAT, SERVED, model)


def said(request: object, model: str | None = None) -> tuple[str, str, str | None]:
    found = error(request, model)
    assert found is not None
    assert found.line == 7
    return found.code, found.message, found.param


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


@pytest.mark.parametrize("route", ROUTES)
def test_a_valid_line_of_every_route_has_no_error(route: Route) -> None:
    line = GOOD | {"url": route, "body": {"model": "m", "stream": False} | NEEDED}
    assert error_in(line, 1, route, SERVED, None) is None
    assert error_in(line, 1, route, SERVED, "m") is None


def test_the_url_may_leave_the_version_out() -> None:
    assert error(GOOD | {"url": "/chat/completions"}) is None


@pytest.mark.parametrize("value", [None, 1, [], "text"])
def test_a_line_that_is_no_object_is_not_parseable(value: object) -> None:
    assert said(value) == ("invalid_json_line", "This line is not parseable as valid JSON.", None)


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
def test_a_missing_field_is_named(name: str) -> None:
    wanted = ("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    assert said(without(GOOD, name)) == wanted
    assert said(GOOD | {name: None}) == wanted


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"custom_id": 1}, "Invalid type for 'custom_id': expected a string, but got an integer instead."),
        ({"custom_id": True}, "Invalid type for 'custom_id': expected a string, but got a boolean instead."),
        ({"url": {}}, "Invalid type for 'url': expected a string, but got an object instead."),
        ({"body": "{}"}, "Invalid type for 'body': expected an object, but got a string instead."),
        ({"body": BODY | {"model": ["m"]}}, "Invalid type for 'body.model': expected a string, but got an array"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(changed: dict[str, Any], wanted: str) -> None:
    code, message, _ = said(GOOD | changed)
    assert code == "invalid_type"
    assert message.startswith(wanted)


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/chat", "https://api.openai.com/v1/chat/completions", ""])
def test_the_url_has_to_match_the_endpoint_of_the_batch(url: str) -> None:
    message = "The URL provided for this request does not match the batch endpoint."
    assert said(GOOD | {"url": url}) == ("invalid_url", message, "url")


def test_only_post_is_a_method() -> None:
    assert said(GOOD | {"method": "GET"})[::2] == ("invalid_value", "method")


def test_an_id_is_neither_empty_nor_endless() -> None:
    assert error(GOOD | {"custom_id": "x" * LONGEST_ID}) is None
    assert said(GOOD | {"custom_id": "x" * (LONGEST_ID + 1)})[::2] == ("string_above_max_length", "custom_id")
    assert said(GOOD | {"custom_id": ""})[::2] == ("string_below_min_length", "custom_id")


def test_a_body_needs_a_model() -> None:
    wanted = ("invalid_request", "Model parameter is required.", "body.model")
    assert said(GOOD | {"body": without(BODY, "model")}) == wanted
    assert said(GOOD | {"body": BODY | {"model": ""}}) == wanted


@pytest.mark.parametrize(
    ("route", "needed"), list(zip(ROUTES, ["messages", "prompt", "input", "input"], strict=True)), ids=ROUTES
)
def test_a_body_needs_what_its_route_asks_about(route: Route, needed: str) -> None:
    line = GOOD | {"url": route, "body": {"model": "m"} | without(NEEDED, needed)}
    found = error_in(line, 1, route, SERVED, None)
    message = f"{needed.capitalize()} parameter is required."
    assert found == BatchError("invalid_request", message, f"body.{needed}", 1)


def test_answers_are_taken_whole_and_at_once() -> None:
    message = "Chat Completions: Streaming is not supported in the Batch API."
    assert said(GOOD | {"body": BODY | {"stream": True}}) == ("streaming_unsupported", message, "body.stream")
    assert said(GOOD | {"body": BODY | {"background": True}})[::2] == ("invalid_request", "body.background")


def test_a_model_that_nobody_serves_is_not_found() -> None:
    message = "The provided model 'x' is not supported by the Batch API: /v1/models lists those that are."
    assert said(GOOD | {"body": BODY | {"model": "x"}}, "m") == ("model_not_found", message, "body.model")


def test_all_lines_of_a_batch_have_one_model() -> None:
    message = (
        "The model 'other' for this request does not match the rest of the batch. "
        "Each batch must contain requests for a single model."
    )
    assert said(GOOD | {"body": BODY | {"model": "other"}}, "m") == ("mismatched_model", message, "body.model")
