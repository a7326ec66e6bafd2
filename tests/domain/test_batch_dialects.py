"""Lines of batch files of other services: read into one form, and written so that the services' own types take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import TypeAdapter

from orchestrator.domain.batch_dialects import (
    CHAT,
    Dialect,
    anthropic_failure,
    anthropic_result,
    read_line,
    request_line,
)
from orchestrator.domain.batch_output import output_line, refused_line

if TYPE_CHECKING:
    from orchestrator.domain.batch_lines import Route

MESSAGES = [{"role": "user", "content": "x"}]
BODY = {"model": "m", "messages": MESSAGES}
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "y"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
ERROR = {"error": {"message": "too long", "type": "invalid_request_error", "param": None, "code": None}}
READ = {"custom_id": "a", "body": BODY}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param({"custom_id": "a", "method": "POST", "url": CHAT, "body": BODY}, id="openai, groq, vllm, litellm"),
        pytest.param({"custom_id": "a", "method": "POST", "url": "/chat/completions", "body": BODY}, id="azure"),
        pytest.param({"custom_id": "a", "body": BODY}, id="together"),
        pytest.param(
            {"custom_id": "a", "params": {"model": "m", "messages": [{"role": "user", "content": "x"}]}}, id="anthropic"
        ),
    ],
)
def test_the_request_lines_of_all_services_are_read_alike(line: dict[str, object]) -> None:
    assert read_line(line, CHAT, None) == READ
    named = read_line(line, CHAT, "acme/m")["body"]
    assert named == {**BODY, "model": "acme/m"}


def test_a_line_of_mistral_has_no_model_and_perhaps_no_id() -> None:
    assert read_line({"body": {"messages": MESSAGES}}, CHAT, None) == {
        "custom_id": None,
        "body": {"messages": MESSAGES},
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"custom_id": "a", "url": "/v1/embeddings", "body": BODY}, "is for /v1/embeddings, and route is"),
        ({"custom_id": "a"}, "has neither a request"),
        ({"custom_id": "a", "body": "x"}, "has neither a request"),
        ({"custom_id": "a", "result": {}}, "has neither a request"),
        ({"custom_id": "a", "params": {"messages": []}}, "messages"),
    ],
)
def test_a_line_that_is_no_request_here_says_why(line: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_line(line, CHAT, None)


def test_a_message_is_no_request_for_another_route() -> None:
    with pytest.raises(ValueError, match="is for /v1/chat/completions, and route is /v1/embeddings"):
        read_line({"custom_id": "a", "params": {"messages": MESSAGES}}, "/v1/embeddings", None)


def test_what_we_write_as_a_result_is_read_as_one() -> None:
    line = orjson.loads(output_line("1", "a", orjson.dumps(ANSWER).decode()))
    assert read_line(line, CHAT, None) == {"custom_id": "a", "status_code": 200, "body": ANSWER, "error": None}
    refused = orjson.loads(
        refused_line("1", "a", kind="rejected", status=400, message="no", body=orjson.dumps(ERROR).decode())
    )
    assert read_line(refused, CHAT, None) == {"custom_id": "a", "status_code": 400, "body": None, "error": ERROR}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            {"response": None, "error": {"code": "batch_expired", "message": "late"}},
            {"code": "batch_expired", "message": "late"},
        ),
        ({"error": {"message": "no"}}, {"message": "no"}),
        ({"response": {"status_code": 400, "request_id": "r"}, "error": "bad"}, "bad"),
        ({"result": {"type": "expired"}}, {"type": "expired"}),
        ({"result": {"type": "canceled"}}, {"type": "canceled"}),
    ],
)
def test_a_result_without_an_answer_says_why(line: dict[str, object], error: object) -> None:
    found = read_line({"custom_id": "a", **line}, CHAT, None)
    assert (found["custom_id"], found["body"], found["error"]) == ("a", None, error)


def test_the_results_of_anthropic_have_its_types_and_are_read_as_chats() -> None:
    from anthropic.types.messages import MessageBatchIndividualResponse

    line = anthropic_result("a", ANSWER)
    succeeded = MessageBatchIndividualResponse.model_validate(line, strict=True)
    assert succeeded.result.type == "succeeded"
    found: Any = read_line(line, CHAT, None)
    assert found["body"]["choices"] == ANSWER["choices"]
    assert found["body"]["usage"]["total_tokens"] == 3


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (500, "api_error"), (None, "api_error")])
def test_the_failures_of_anthropic_have_its_types(status: int | None, kind: str) -> None:
    from anthropic.types.messages import MessageBatchIndividualResponse

    line = anthropic_failure("a", status, "no")
    result = MessageBatchIndividualResponse.model_validate(line).result
    assert result.type == "errored"
    assert (result.error.error.type, result.error.error.message) == (kind, "no")
    assert read_line(line, CHAT, None)["error"] == {"type": kind, "message": "no"}


def test_each_service_takes_the_requests_that_are_written_for_it() -> None:
    from anthropic.types.messages.batch_create_params import Request
    from mistralai.extra.batch import BatchInput
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

    body = {**BODY, "max_tokens": 5}
    assert request_line("openai", "a", CHAT, body) == {"custom_id": "a", "method": "POST", "url": CHAT, "body": body}
    assert request_line("together", "a", CHAT, body) == {"custom_id": "a", "body": body}
    mistral = BatchInput.from_jsonl_bytes(orjson.dumps(request_line("mistral", "a", CHAT, body))).to_requests()
    assert [(one.custom_id, one.body) for one in mistral] == [("a", {"messages": MESSAGES, "max_tokens": 5})]
    TypeAdapter(Request).validate_python(request_line("anthropic", "a", CHAT, body))
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(body)


@pytest.mark.parametrize(
    ("dialect", "route"),
    [("anthropic", "/v1/embeddings"), ("together", "/v1/embeddings"), ("mistral", "/v1/responses")],
)
def test_a_route_that_the_batches_of_a_service_lack_is_refused(dialect: Dialect, route: Route) -> None:
    with pytest.raises(ValueError, match=f"is for {route}, which {dialect.title()} lacks"):
        request_line(dialect, "a", route, BODY)


def test_the_answers_in_our_results_have_the_type_of_openai() -> None:
    from openai.types.chat import ChatCompletion

    line = orjson.loads(output_line("1", "a", orjson.dumps(ANSWER).decode()))
    assert ChatCompletion.model_validate(line["response"]["body"], strict=True).choices[0].message.content == "y"


@pytest.mark.parametrize(
    ("dialect", "custom_id", "taken"),
    [
        ("anthropic", "a-b_C9", True),
        ("anthropic", "x" * 64, True),
        ("anthropic", "x" * 65, False),
        ("anthropic", "reviews/1", False),
        ("anthropic", "é", False),
        ("together", "reviews/1", True),
        ("together", "x" * 65, False),
        ("openai", "reviews/" + "1" * 99, True),
    ],
)
def test_an_id_that_a_service_would_refuse_is_left_out_with_what_it_takes(
    dialect: Dialect, custom_id: str, *, taken: bool
) -> None:
    body = {**BODY, "max_tokens": 5}
    if taken:
        assert request_line(dialect, custom_id, CHAT, body)["custom_id"] == custom_id
    else:
        with pytest.raises(ValueError, match=r"has an id that .* refuses: it takes up to 64"):
            request_line(dialect, custom_id, CHAT, body)


def test_mistral_reads_our_results() -> None:
    from mistralai.client.models import ChatCompletionResponse
    from mistralai.extra.batch import BatchOutput

    lines = output_line("1", "a", orjson.dumps(ANSWER).decode()) + refused_line(
        "2", "b", kind="rejected", status=400, message="no", body=None
    )
    found = BatchOutput.from_jsonl_bytes(lines.encode(), ChatCompletionResponse)
    assert list(found.responses) == ["a"]
    assert [(one.custom_id, one.status_code) for one in found.request_errors] == [("b", 400)]
    assert not found.response_errors
