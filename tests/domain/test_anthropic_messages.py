"""Requests and answers of Anthropic's Messages API and of chat completions, checked by the types of both packages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.domain.anthropic_messages import chat_answer, chat_request, message_answer, message_request

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
PIXEL = "iVBORw0KGgo="

FULL_PARAMS = {
    "model": "m",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "somebody"},
    "thinking": {"type": "disabled"},
    "tools": [{"name": "add", "description": "adds", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "messages": [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "add", "input": {"x": 1}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "two"},
                {"type": "text", "text": "And this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
    ],
}
FULL_CHAT = {
    "model": "m",
    "max_tokens": 50,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "stop": ["END"],
    "tools": [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": SCHEMA}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    },
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "two"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
    ],
}


def params() -> TypeAdapter[Any]:
    from anthropic.types import MessageCreateParams

    return TypeAdapter(MessageCreateParams)


def test_a_message_with_everything_becomes_a_chat() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

    params().validate_python(FULL_PARAMS)
    assert chat_request(FULL_PARAMS) == FULL_CHAT
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(
        {name: value for name, value in FULL_CHAT.items() if name != "top_k"}
    )


def test_a_chat_with_everything_becomes_a_message() -> None:
    made = message_request(FULL_CHAT)
    params().validate_python(made)
    assert chat_request(made) == FULL_CHAT


def message(**more: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], **more}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"container": "c"}, "container"),
        ({"stream": True}, "stream"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "surprise"}}, "tool_choice"),
        ({"output_config": {"effort": "high"}}, "output_config"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [7]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages"),
        ({"system": 7}, "system"),
        ({"messages": None}, "messages"),
    ],
)
def test_what_a_chat_lacks_is_refused_by_name(more: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        chat_request(message(**more))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"n": 2}, "n`"),
        ({"seed": 7}, "seed"),
        ({"stream": True}, "stream"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "custom"}]}, "tools"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x", "refusal": "no"}]}, "messages"),
    ],
)
def test_what_a_message_lacks_is_refused_by_name(more: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        message_request(message(**more))


def test_turns_of_one_role_are_joined_since_messages_alternate() -> None:
    params = message_request(
        message(
            messages=[{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "y"}]}]
        )
    )
    blocks = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    assert params["messages"] == [{"role": "user", "content": blocks}]


COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}


def test_a_completion_becomes_a_message_with_its_calls_and_tokens() -> None:
    from anthropic.types import Message
    from openai.types.chat import ChatCompletion

    ChatCompletion.model_validate(COMPLETION)
    found = Message.model_validate(message_answer(COMPLETION, "msg_1"), strict=True)
    assert [block.type for block in found.content] == ["text", "tool_use"]
    assert found.stop_reason == "tool_use"
    assert (found.usage.input_tokens, found.usage.cache_read_input_tokens, found.usage.output_tokens) == (7, 3, 4)


@pytest.mark.parametrize(
    ("choice", "reason", "sequence"),
    [
        ({"finish_reason": "stop"}, "end_turn", None),
        ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence", "END"),
        ({"finish_reason": "stop", "stop_reason": 128009}, "end_turn", None),
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"finish_reason": "content_filter"}, "refusal", None),
    ],
)
def test_each_end_of_a_completion_has_a_name_in_messages(
    choice: dict[str, object], reason: str, sequence: str | None
) -> None:
    from anthropic.types import Message

    answer = {"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, **choice}]}
    found = Message.model_validate(message_answer(answer, "msg_1"))
    assert (found.stop_reason, found.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"text": "x"}]}, {"data": [[1.0]]}])
def test_what_is_not_a_completion_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a chat completion"):
        message_answer(answer, "msg_1")


def test_an_answer_of_a_message_becomes_a_completion() -> None:
    from openai.types.chat import ChatCompletion

    back = chat_answer(message_answer(COMPLETION, "msg_1"))
    ChatCompletion.model_validate(back | {"created": 1})
    assert back["choices"] == COMPLETION["choices"]
    assert back["usage"] == COMPLETION["usage"]


def test_thinking_is_left_out_of_a_completion_and_other_content_is_refused() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    thinking = {"type": "thinking", "thinking": "...", "signature": "s"}
    said = chat_answer({"content": [thinking, {"type": "text", "text": "x"}], "usage": usage})
    assert said["choices"][0]["message"] == {"role": "assistant", "content": "x"}
    with pytest.raises(ValueError, match="server_tool_use"):
        chat_answer({"content": [{"type": "server_tool_use"}], "usage": usage})


TEXTS = st.text(min_size=1, max_size=20)
CALLS = st.builds(
    lambda name, value: {
        "id": f"id-{name}",
        "type": "function",
        "function": {"name": "f", "arguments": json.dumps(value)},
    },
    st.text("abc", min_size=1, max_size=5),
    st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=2),
)


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, object]]:
    """Chats whose turns alternate, with tools, and a user at the end."""
    turns: list[dict[str, object]] = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 3))):
        turns.append({"role": "user", "content": draw(TEXTS)})
        calls = draw(st.lists(CALLS, max_size=2))
        turns.append({"role": "assistant", "content": draw(TEXTS), **({"tool_calls": calls} if calls else {})})
        turns += [{"role": "tool", "tool_call_id": call["id"], "content": draw(TEXTS)} for call in calls]
    return [*turns, {"role": "user", "content": draw(TEXTS)}]


@given(chats())
def test_a_chat_survives_the_way_to_a_message_and_back(messages: list[dict[str, object]]) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": messages}
    params = message_request(body)
    roles = [turn["role"] for turn in params["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    found = chat_request(params)
    assert [_arguments(one) for one in found["messages"]] == [_arguments(one) for one in messages]


def _arguments(turn: Any) -> object:
    """Return a turn with the arguments of its calls as values."""
    calls = [call | {"function": json.loads(call["function"]["arguments"])} for call in turn.get("tool_calls", ())]
    return {**turn, "tool_calls": calls}
