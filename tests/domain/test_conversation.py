"""Requests and answers as conversations: OpenAI's shapes, and values that are anything else."""

from __future__ import annotations

import pytest

from orchestrator.domain.conversation import (
    Dialogue,
    Other,
    Picture,
    Text,
    ToolCall,
    Turn,
    answer_turns,
    conversation_of,
)

PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("request_", "turns"),
    [
        ("hi", [Turn("user", [Text("hi")])]),
        ({"prompt": "hi"}, [Turn("user", [Text("hi")])]),
        ({"inputs": "hi"}, [Turn("user", [Text("hi")])]),
        ([{"role": "user", "content": "hi"}], [Turn("user", [Text("hi")])]),
        ({"messages": [{"role": "system", "content": "be kind"}]}, [Turn("system", [Text("be kind")])]),
        (
            {"instructions": "be kind", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
            [Turn("system", [Text("be kind")]), Turn("user", [Text("hi")])],
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c1", "output": "3"}]},
            [Turn("tool", [Text("3")], "answers c1")],
        ),
    ],
)
def test_a_request_in_any_shape_of_a_conversation_has_turns(request_: object, turns: list[Turn]) -> None:
    conversation = conversation_of(request_)
    assert conversation is not None
    assert conversation.turns == turns


@pytest.mark.parametrize(
    "request_", [None, 3, [], [1, 2], {"messages": []}, {"image": {"$file": "a.png"}}, {"input": [1]}]
)
def test_other_requests_are_no_conversation(request_: object) -> None:
    assert conversation_of(request_) is None


def test_everything_but_the_turns_is_a_setting() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    assert conversation_of(request) == Dialogue([Turn("user", [Text("hi")])], {"model": "m", "temperature": 0})


def test_a_tool_call_keeps_its_arguments_as_the_model_wrote_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    said = answer_turns({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert said == [Turn("assistant", [ToolCall("weather", '{"city": ')], "ended: tool_calls")]


def test_what_a_model_thought_is_a_turn_before_what_it_said() -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    said = answer_turns({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert said == [Turn("assistant", [Text("2 and 2")], "reasoning"), Turn("assistant", [Text("4")])]


def test_an_answer_of_the_responses_api_has_a_turn_for_each_item() -> None:
    answer = {
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "name": "weather", "arguments": "{}"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "warm"}]},
        ]
    }
    assert answer_turns(answer) == [
        Turn("assistant", [Text("hm")], "reasoning"),
        Turn("assistant", [ToolCall("weather", "{}")]),
        Turn("assistant", [Text("warm")]),
    ]


@pytest.mark.parametrize("answer", [None, 3, [0.1, 0.2], {"label": "good"}, {"choices": []}, {"choices": ["x"]}])
def test_scores_and_labels_are_not_said_by_anybody(answer: object) -> None:
    assert answer_turns(answer) is None


def _user_parts(*parts: object) -> object:
    conversation = conversation_of([{"role": "user", "content": list(parts)}])
    assert conversation is not None
    return conversation.turns[0].parts


def test_only_pixels_inside_the_request_are_a_picture() -> None:
    assert _user_parts({"type": "image_url", "image_url": {"url": PIXEL}}) == [Picture(PIXEL)]
    assert _user_parts({"type": "input_image", "image_url": PIXEL}) == [Picture(PIXEL)]
    for url in (
        "https://example.org/a.png",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PGI+",
        f'{PIXEL}" onerror="alert(1)',
        "javascript:alert(1)",
    ):
        part = {"type": "image_url", "image_url": {"url": url}}
        assert _user_parts(part) == [Other(part)]


@pytest.mark.parametrize(
    "message",
    [
        {"role": 3, "content": {"a": 1}, "tool_calls": "x", "name": 4},
        {"role": "user", "content": [None, 3, {"type": "text", "text": 5}], "tool_calls": [None, {"function": 1}]},
        {"type": "function_call", "name": None},
        {"type": "reasoning"},
        {"type": "function_call_output", "output": 3, "call_id": {}},
    ],
)
def test_values_of_any_type_are_shown_and_never_fail(message: object) -> None:
    assert conversation_of([message]) is not None
    assert answer_turns({"choices": [{"message": message}]}) is not None
