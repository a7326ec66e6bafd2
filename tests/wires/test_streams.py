"""Answers in parts become the answer that would have come in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.domain.answer import Answer
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires import OpenAIChatWire, OpenAICompletionsWire, OpenAIResponsesWire
from orchestrator.wires.streams import CHATS, COMPLETIONS, FirstText, Streams, in_parts, whole_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.wires import Wire

USAGE = {"prompt_tokens": 3, "completion_tokens": 5}


def chat(delta: dict[str, Any], how: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": how}], "usage": None}


def text(index: int, said: str, how: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": said, "finish_reason": how}]}


def call(index: int, arguments: str, **about: Any) -> dict[str, Any]:
    return {"index": index, **about, "function": {"arguments": arguments, **about.get("function", {})}}


def sent(events: Sequence[object]) -> bytes:
    return b"".join(b": ping\n\ndata: %b\r\n\r\n" % orjson.dumps(event) for event in events) + b"data: [DONE]\n\n"


SAID = [chat({"role": "assistant", "content": ""}), chat({"content": "He"}), chat({"content": "llo"}), chat({}, "stop")]
CALLED = [
    chat({"content": None, "tool_calls": [call(0, "", id="1", type="function", function={"name": "look"})]}),
    chat({"tool_calls": [call(0, '{"at"')]}),
    chat({"tool_calls": [call(1, "{}", id="2", type="function", function={"name": "end"})]}),
    chat({"tool_calls": [call(0, ": 1}")]}),
    chat({}, "tool_calls"),
]
COUNTED = {"choices": [], "usage": USAGE}
RESPONSE = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {"input_tokens": 3, "output_tokens": 5},
}


@pytest.mark.parametrize(
    ("wire", "events", "values"),
    [
        (OpenAIChatWire("m"), [*SAID, COUNTED], ["Hello"]),
        (
            OpenAIChatWire("m", extract="json"),
            [chat({"content": '{"a":'}), chat({"content": " 1}"}, "stop"), COUNTED],
            [{"a": 1}],
        ),
        (
            OpenAICompletionsWire("m"),
            [text(1, "b"), text(0, "a"), text(1, "d", "stop"), text(0, "c", "stop"), COUNTED],
            ["ac", "bd"],
        ),
        (
            OpenAIResponsesWire("m"),
            [
                {"type": "response.output_text.delta", "delta": "He"},
                {"type": "response.completed", "response": RESPONSE},
            ],
            ["Hello"],
        ),
    ],
)
async def test_the_whole_answer_is_made_of_the_parts(wire: Wire, events: list[object], values: list[object]) -> None:
    assert isinstance(wire, Streams)
    body = in_parts(wire.stream, await wire.pack([b'"text"'] * len(values)))
    assert orjson.loads(body.content)["stream"] is True
    answers = wire.unpack(whole_answer(wire.stream, sent(events)), len(values))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert [answer.value for answer in answers if isinstance(answer, Answer)] == values
    assert sum(answer.tokens_out or 0 for answer in answers if isinstance(answer, Answer)) == 5


def test_tool_calls_are_joined() -> None:
    (answer,) = OpenAIChatWire("m").unpack(whole_answer(CHATS, sent(CALLED)), 1)
    value: Any = answer.value if isinstance(answer, Answer) else answer
    names = [(one["id"], one["function"]) for one in value["tool_calls"]]
    assert names == [("1", {"name": "look", "arguments": '{"at": 1}'}), ("2", {"name": "end", "arguments": "{}"})]


@pytest.mark.parametrize(
    "content",
    [
        sent(SAID[:-1]),
        sent([{"error": {"message": "out of memory"}}]),
        sent([*SAID[:2], {"error": "gone"}]),
        b"data: {cut",
    ],
)
def test_a_stream_without_its_end_is_no_answer(content: bytes) -> None:
    with pytest.raises(RequestFailed) as failed:
        OpenAIChatWire("m").unpack(whole_answer(CHATS, content), 1)
    assert failed.value.kind is FailureKind.GARBLED


def test_an_answer_that_came_whole_is_one() -> None:
    body = orjson.dumps({"choices": [{"text": "all", "finish_reason": "stop"}]})
    assert whole_answer(COMPLETIONS, body) == body


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_first_text_is_seen_once_with_the_part_that_has_it(size: int) -> None:
    content, seen = sent(SAID), list[int]()
    place = 0
    first = FirstText(CHATS, lambda: seen.append(place))
    for place in range(0, len(content), size):
        first.watch(content[place : place + size])
    first.ended()
    (at,) = seen
    assert at <= content.index(b"He") + len(sent(SAID[1:2])) <= at + size + 200
    assert size > 1 or at > content.index(b"He")
