from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.domain.answer import Answer
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import File
from orchestrator.wires import OpenAIBatchWire

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.batch_lines import Route

CHAT = OpenAIBatchWire("/v1/chat/completions", "m")


async def test_a_body_is_sent_byte_for_byte() -> None:
    body = b'{"model": "m",  "n": 3, "seed": 123456789012345678901234567890, "messages": []}'
    assert (await CHAT.pack([body])).content == body


async def test_a_body_that_looks_like_a_file_of_this_machine_is_only_data(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"hidden")
    file = File(str(secret), hashlib.sha256(b"hidden").hexdigest(), "image/png").as_json()
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [file]}]})
    assert (await CHAT.pack([body])).content == body


@pytest.mark.parametrize("body", [{"stream": True}, {"background": True}, [], "text", None])
async def test_a_body_whose_answer_cannot_be_taken_whole_is_rejected(body: object) -> None:
    with pytest.raises(RequestFailed) as failure:
        await CHAT.pack([orjson.dumps(body)])
    assert failure.value.kind is FailureKind.REJECTED


@pytest.mark.parametrize(
    ("route", "answer", "kind"),
    [
        ("/v1/chat/completions", {"data": []}, FailureKind.BAD_ANSWER),
        ("/v1/chat/completions", {"choices": None}, FailureKind.BAD_ANSWER),
        ("/v1/embeddings", {"choices": []}, FailureKind.BAD_ANSWER),
        ("/v1/embeddings", {"data": [{"embedding": [0.5, None]}]}, FailureKind.GARBLED),
        ("/v1/responses", {"status": "failed", "output": [], "error": {"message": "no"}}, FailureKind.GARBLED),
        ("/v1/responses", {"status": "in_progress", "output": []}, FailureKind.GARBLED),
    ],
)
def test_what_is_no_answer_of_its_route_is_a_failure(route: Route, answer: object, kind: FailureKind) -> None:
    with pytest.raises(RequestFailed) as failure:
        OpenAIBatchWire(route, "m").unpack(orjson.dumps(answer), 1)
    assert failure.value.kind is kind


def test_an_incomplete_response_is_an_answer_as_its_server_said_it() -> None:
    answer: dict[str, Any] = {"status": "incomplete", "output": [], "error": None, "usage": None}
    assert OpenAIBatchWire("/v1/responses", "m").unpack(orjson.dumps(answer), 1) == [Answer(answer)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b' {"choices": [1E5,\r\n  -0.0], "choices": [100000.0] }\n',
            '{"choices": [1E5,    -0.0], "choices": [100000.0] }',
        ),
        (
            '{"choices":["é\u2028"],"n":123456789012345678901}'.encode(),
            '{"choices":["é\u2028"],"n":123456789012345678901}',
        ),
        (b'{"choices": ["\\ud800"]}', None),
    ],
)
def test_the_text_of_an_answer_is_the_servers_unless_strict_readers_refuse_it(content: bytes, text: str | None) -> None:
    (answer,) = CHAT.unpack(content, 1)
    assert isinstance(answer, Answer)
    assert answer.text == text


def test_an_unknown_route_is_refused() -> None:
    with pytest.raises(ValueError, match="route must be one of /v1/chat/completions, "):
        OpenAIBatchWire("/v1/images", "m")  # type: ignore[arg-type]  # what it is about


TEXT: dict[str, Any] = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
CALLS: dict[str, Any] = {"message": {"role": "assistant", "tool_calls": [{"id": "c"}]}, "finish_reason": "tool_calls"}
SAID = {"type": "message", "content": [{"type": "output_text", "text": "x"}]}


@pytest.mark.parametrize(
    ("route", "answer", "due"),
    [
        ("/v1/chat/completions", {"choices": [TEXT]}, True),
        ("/v1/chat/completions", {"choices": [CALLS, TEXT]}, True),
        ("/v1/chat/completions", {"choices": [CALLS, {**CALLS, "finish_reason": "stop"}]}, False),
        ("/v1/chat/completions", {"choices": [{**TEXT, "finish_reason": "length"}]}, False),  # it says so itself
        ("/v1/chat/completions", {"choices": [{**TEXT, "message": {"refusal": "I will not"}}]}, False),
        ("/v1/responses", {"status": "completed", "output": [SAID]}, True),
        ("/v1/responses", {"status": "completed", "output": [{"type": "function_call", "name": "f"}]}, False),
        ("/v1/responses", {"status": "incomplete", "output": [SAID]}, False),
    ],
)
def test_a_text_is_no_answer_to_a_line_that_demands_a_call(route: Route, answer: object, *, due: bool) -> None:
    wire, content = OpenAIBatchWire(route, "m"), orjson.dumps(answer)
    for choice in ("auto", "none", None):
        assert wire.reading([orjson.dumps({"tool_choice": choice})]).unpack(content, 1) == [Answer(answer)]
    reader = wire.reading([orjson.dumps({"tools": [], "tool_choice": "required"})])
    assert reader == wire  # it is the same job
    if not due:
        assert reader.unpack(content, 1) == [Answer(answer)]
        return
    with pytest.raises(RequestFailed, match="tool_choice demands a call") as failure:
        reader.unpack(content, 1)
    assert failure.value.kind is FailureKind.BAD_ANSWER
