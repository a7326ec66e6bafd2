from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.domain.batch import BatchUsage
from orchestrator.domain.batch_output import output_line, refused_line, unasked_line, usage_in

if TYPE_CHECKING:
    from typing import Literal

FAILED: dict[str, Any] = {"kind": "rejected", "status": 400, "message": "too long", "body": None}


def read(line: str) -> Any:
    assert line.endswith("\n")
    assert line.count("\n") == 1
    return json.loads(line)


def test_an_answer_is_the_body_of_a_response_as_it_is_in_the_ledger() -> None:
    answer = '{"choices":[{"message":{"content":"é"}}],"wide":123456789012345678901234567890,"float":1.0}'
    line = output_line("7_1", 'a"b', answer)
    assert answer in line
    assert read(line) == {
        "id": "batch_req_7_1",
        "custom_id": 'a"b',
        "response": {"status_code": 200, "request_id": "req_7_1", "body": json.loads(answer)},
        "error": None,
    }


def test_a_line_stays_one_to_readers_that_split_text() -> None:
    said = "a\x85b\u2028c\u2029d"
    line = output_line("1", said, json.dumps({"said": said}, ensure_ascii=False))
    assert len(line.splitlines()) == 1
    assert read(line)["response"]["body"] == {"said": said}


def test_a_refused_request_has_the_status_and_the_body_of_the_server() -> None:
    body = '{\n  "error": {"message": "too long", "code": null}\n}'
    found = read(refused_line("1", "a", **FAILED | {"body": body}))
    assert found["error"] is None
    assert found["response"] == {"status_code": 400, "request_id": "req_1", "body": json.loads(body)}


def test_the_body_of_a_refusal_is_as_its_server_wrote_it() -> None:
    body = '{"error": {"n": 1E5,\n "n": 2.50, "said": "é\u2028"}}'
    line = refused_line("1", "a", **FAILED | {"body": body})
    assert '"body": {"error": {"n": 1E5,  "n": 2.50, "said": "é\\u2028"}}}' in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("body", ["<html>no", '["no"]', '{"error": {"mess', '{"a": NaN}', "[" * 100_000])
def test_a_body_that_is_no_object_becomes_the_message_of_one(body: str) -> None:
    found = read(refused_line("1", "a", **FAILED | {"body": body, "status": 502}))
    error = {"message": body, "type": "server_error", "param": None, "code": "rejected"}
    assert found["response"]["body"] == {"error": error}
    assert found["response"]["status_code"] == 502


def test_without_a_body_the_response_has_the_message() -> None:
    error = read(refused_line("1", "a", **FAILED))["response"]["body"]["error"]
    assert (error["message"], error["type"]) == ("too long", "invalid_request_error")


@pytest.mark.parametrize("status", [None, 200])
def test_without_a_refusal_there_is_an_error_and_no_response(status: int | None) -> None:
    found = read(refused_line("1", "a", **FAILED | {"kind": "timeout", "status": status, "body": '{"error": "no"}'}))
    assert found["response"] is None
    assert found["error"] == {"code": "timeout", "message": "too long"}


@pytest.mark.parametrize("ended_as", ["expired", "cancelled"])
def test_a_request_that_was_not_asked_says_why(ended_as: Literal["expired", "cancelled"]) -> None:
    found = read(unasked_line("1", "a", ended_as))
    assert (found["custom_id"], found["response"], found["error"]["code"]) == ("a", None, f"batch_{ended_as}")


def test_usage_is_summed_under_the_names_of_all_routes() -> None:
    chat = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    response = {
        "input_tokens": 10,
        "output_tokens": 20,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 6},
    }
    embedding = {"prompt_tokens": 100, "total_tokens": 100}
    total = sum((usage_in({"usage": usage}) for usage in (chat, response, embedding)), BatchUsage())
    assert total == BatchUsage(115, 6, 27, 9)


@pytest.mark.parametrize(
    "answer",
    [None, [], {"usage": None}, {"usage": {"prompt_tokens": "5", "prompt_tokens_details": None}}, {"usage": [1]}],
)
def test_what_a_server_does_not_report_counts_as_none(answer: object) -> None:
    assert usage_in(answer) == BatchUsage()
