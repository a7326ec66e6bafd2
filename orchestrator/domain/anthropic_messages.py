"""Requests and answers of Anthropic's Messages API in the shapes of OpenAI's chat completions, and back.

Source of the shapes: the types of the packages `anthropic` 2.14 and `openai` 3.57. What one API has and the other lacks
is refused, unless it cannot change the answer: then it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Object: TypeAlias = Mapping[str, Any]

_SAME = frozenset({"model", "max_tokens", "temperature", "top_p", "top_k"})
_WITHOUT_EFFECT = frozenset(  # they say who asks and who pays, how soon, where, and what is cached
    {"metadata", "user", "user_profile_id", "workspace_id", "service_tier", "speed", "inference_geo", "cache_control"}
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CHOICES_BACK = {chat: own for own, chat in _CHOICES.items()}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_FINISH_REASONS = {own: chat for chat, own in _STOP_REASONS.items()} | {
    "stop_sequence": "stop",
    "model_context_window_exceeded": "length",
}


def chat_request(params: Object) -> dict[str, Any]:
    """Return the body of a chat completion request for the parameters of a message.

    Raises `ValueError`, which names the parameter, if chat completions lack it.
    """
    body = _converted(params, _TO_CHAT)
    if "messages" not in body:
        raise ValueError("has no `messages`")
    return body | {"messages": [*body.pop("system", ()), *body["messages"]]}


def message_request(body: Object) -> dict[str, Any]:
    """Return the parameters of a message for the body of a chat completion request.

    Raises `ValueError`, which names the parameter, if messages lack it, or need one that the body lacks.
    """
    params = _converted(body, _TO_MESSAGE)
    if params.pop("parallel_tool_calls", True) is False:
        params["tool_choice"] = {"type": "auto"} | params.get("tool_choice", {}) | {"disable_parallel_tool_use": True}
    if "max_tokens" not in params:
        raise ValueError("has no `max_tokens`, which Anthropic needs: set it in the wire or in the request")
    return params


def message_answer(completion: Object, message_id: str) -> dict[str, Any]:
    """Return a chat completion as a message with this id. Its first choice is the answer.

    Raises `ValueError` if it is not a chat completion.
    """
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = _in(choice, "message")
    if not isinstance(message, Mapping):
        raise ValueError("has an answer that is not a chat completion")
    text = message.get("content")
    content: list[object] = [{"type": "text", "text": text}] if text else []
    content += [_tool_use(call) for call in message.get("tool_calls") or ()]
    matched = _in(choice, "stop_reason")  # vLLM says which of the stop texts it was
    reason = _STOP_REASONS.get(_in(choice, "finish_reason") or "", "end_turn")
    usage = completion.get("usage") or {}
    cached = _in(usage.get("prompt_tokens_details"), "cached_tokens") or 0
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": completion.get("model") or "",
        "content": content,
        "stop_reason": "stop_sequence" if isinstance(matched, str) and reason == "end_turn" else reason,
        "stop_sequence": matched if isinstance(matched, str) else None,
        "usage": {
            "input_tokens": (usage.get("prompt_tokens") or 0) - cached,
            "cache_read_input_tokens": cached,
            "output_tokens": usage.get("completion_tokens") or 0,
        },
    }


def chat_answer(message: Object) -> dict[str, Any]:
    """Return a message as a chat completion. Raises `ValueError` if it has content that chat completions lack."""
    texts: list[str] = []
    calls: list[object] = []
    for block in message.get("content") or ():
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "tool_use"}:
                calls.append(_tool_call(block))
            case {"type": "thinking" | "redacted_thinking"}:
                pass  # chat completions have no place for it that servers agree on
            case _:
                raise ValueError(f"has an answer of the type {_in(block, 'type')!r}, which chats lack")
    answer = {"role": "assistant", "content": "".join(texts) or None, **({"tool_calls": calls} if calls else {})}
    usage = message.get("usage") or {}
    cached = usage.get("cache_read_input_tokens") or 0
    tokens_in = (usage.get("input_tokens") or 0) + cached + (usage.get("cache_creation_input_tokens") or 0)
    tokens_out = usage.get("output_tokens") or 0
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "model": message.get("model"),
        "choices": [
            {
                "index": 0,
                "message": answer,
                "finish_reason": _FINISH_REASONS.get(message.get("stop_reason") or "", "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _converted(values: Object, rules: Mapping[str, Callable[[Any], dict[str, Any]]]) -> dict[str, Any]:
    """Convert each parameter by its rule. Without a rule, it must be in both APIs or without effect."""
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or name in _WITHOUT_EFFECT:
            continue
        if name in rules:
            converted |= rules[name](value)
        elif name in _SAME:
            converted[name] = value
        else:
            _refuse(name, value)
    return converted


def _only(name: str, usual: Sequence[object]) -> Callable[[object], dict[str, Any]]:
    """Return the rule for a parameter that may only have values that mean the same as leaving it out."""
    return lambda value: {} if value in usual else _refuse(name, value)


def _refuse(name: str, value: object) -> NoReturn:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    raise ValueError(f"has `{name}`, which the other format lacks: {shown if len(shown) <= 60 else shown[:60] + '...'}")


def _in(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _plain(content: object, where: str) -> object:
    """Return text as it is, and blocks of text as parts of a chat's message."""
    match content:
        case str():
            return content
        case [*blocks]:
            return _text_alone([_part(block, where) for block in blocks])
    return _refuse(where, content)


def _text_alone(parts: list[Any]) -> object:
    """Return a single part of text as text, which every chat server takes; else the parts."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(block: object, where: str, *, images: bool = False) -> object:
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}} if images:
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"type": "image", "source": {"type": "url", "url": str(url)}} if images:
            return {"type": "image_url", "image_url": {"url": url}}
    return _refuse(where, block)


def _chat_messages(turn: Object) -> Iterator[object]:
    """Yield the chat's messages for one turn: results of tools are messages of their own there."""
    match turn:
        case {"role": "user" | "assistant", "content": str(text)}:
            yield {"role": turn["role"], "content": text}
        case {"role": "user", "content": [*blocks]}:
            rest: list[Any] = []
            for block in blocks:
                if _in(block, "type") == "tool_result" and not rest:
                    content = _plain(block.get("content") or "", "tool_result")
                    yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
                else:
                    rest.append(_part(block, "messages", images=True))
            if rest:
                yield {"role": "user", "content": _text_alone(rest)}
        case {"role": "assistant", "content": [*blocks]}:
            texts: list[Any] = [_part(block, "messages") for block in blocks if _in(block, "type") != "tool_use"]
            calls = [_tool_call(block) for block in blocks if _in(block, "type") == "tool_use"]
            content = _text_alone(texts) if texts else None
            yield {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
        case _:
            _refuse("messages", turn)


def _turns(messages: Sequence[Object]) -> dict[str, Any]:
    """Return `system` and `messages` of a message for those of a chat."""
    system: list[object] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        match message:
            case {"role": "system" | "developer", "content": content} if not turns:
                system += _blocks(content)
            case {"role": "user", "content": content}:
                _add(turns, "user", _blocks(content))
            case {"role": "assistant", **rest} if not _others(rest):
                calls = [_tool_use(call) for call in rest.get("tool_calls") or ()]
                _add(turns, "assistant", [*_blocks(rest.get("content") or []), *calls])
            case {"role": "tool", "tool_call_id": call, "content": content}:
                _add(turns, "user", [{"type": "tool_result", "tool_use_id": call, "content": _blocks(content)}])
            case _:
                _refuse("messages", message)
    return {"messages": turns} | ({"system": system} if system else {})


def _others(answer: Object) -> bool:
    return any(value for name, value in answer.items() if name not in {"content", "tool_calls"})


def _add(turns: list[dict[str, Any]], role: str, blocks: Iterable[object]) -> None:
    """Add blocks to the turns, which alternate between user and assistant."""
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": [*blocks]})


def _blocks(content: object) -> list[object]:
    match content:
        case str():
            return [{"type": "text", "text": content}]
        case [*parts]:
            return [_block(part) for part in parts]
    return _refuse("messages", content)


def _block(part: object) -> object:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:") and ";base64," in url:
            kind, data = url.removeprefix("data:").split(";base64,", 1)
            return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return {"type": "image", "source": {"type": "url", "url": url}}
    return _refuse("messages", part)


def _function(tool: Object) -> object:
    match tool:
        case {"name": str(), "input_schema": schema} if tool.get("type") in (None, "custom"):
            described = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
            return {"type": "function", "function": described | {"parameters": schema}}
    return _refuse("tools", tool)


def _tool(tool: Object) -> object:
    match tool:
        case {"type": "function", "function": {"name": str(), **_more} as function}:
            same = {
                name: function[name] for name in ("name", "description", "strict") if function.get(name) is not None
            }
            return same | {"input_schema": function.get("parameters") or {"type": "object"}}
    return _refuse("tools", tool)


def _tool_call(block: Object) -> object:
    match block:
        case {"id": str(call), "name": str(name), "input": arguments}:
            written = json.dumps(arguments, ensure_ascii=False)
            return {"id": call, "type": "function", "function": {"name": name, "arguments": written}}
    return _refuse("tool_use", block)


def _tool_use(call: Object) -> dict[str, object]:
    match call:
        case {"id": str(known), "function": {"name": str(name), "arguments": str(arguments)}}:
            try:
                return {"type": "tool_use", "id": known, "name": name, "input": json.loads(arguments or "{}")}
            except ValueError as error:
                raise ValueError(f"has a call of {name} whose arguments are not JSON: {arguments[:60]}") from error
    return _refuse("tool_calls", call)


def _all_chat_messages(turns: Any) -> dict[str, Any]:
    if not isinstance(turns, list) or not turns or _in(turns[-1], "role") == "assistant":
        raise ValueError("has `messages` that do not end with the user, and a chat server does not continue an answer")
    return {"messages": [message for turn in turns for message in _chat_messages(turn)]}


def _tool_choice(choice: Any) -> dict[str, Any]:
    parallel = {"parallel_tool_calls": False} if _in(choice, "disable_parallel_tool_use") else {}
    match choice:
        case {"type": "tool", "name": name}:
            return {"tool_choice": {"type": "function", "function": {"name": name}}} | parallel
        case {"type": "auto" | "any" | "none" as kind}:
            return {"tool_choice": _CHOICES[kind]} | parallel
    return _refuse("tool_choice", choice)


def _choice_of(choice: Any) -> dict[str, Any]:
    match choice:
        case {"type": "function", "function": {"name": name}}:
            return {"tool_choice": {"type": "tool", "name": name}}
        case "auto" | "required" | "none":
            return {"tool_choice": {"type": _CHOICES_BACK[choice]}}
    return _refuse("tool_choice", choice)


def _response_format(config: Any) -> dict[str, Any]:
    match config:
        case {"format": {"type": "json_schema", "schema": schema}, **more} if not any(more.values()):
            answer = {"name": "answer", "schema": schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": answer}}
    return _refuse("output_config", config)


def _output_config(format_: Any) -> dict[str, Any]:
    match format_:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
        case {"type": "text"}:
            return {}
    return _refuse("response_format", format_)


_TO_CHAT: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "messages": _all_chat_messages,
    "system": lambda text: {"system": [{"role": "system", "content": _plain(text, "system")}]},
    "stop_sequences": lambda texts: {"stop": texts},
    "tools": lambda tools: {"tools": [_function(tool) for tool in tools]},
    "tool_choice": _tool_choice,
    "output_config": _response_format,
    "thinking": _only("thinking", [{"type": "disabled"}]),
    "stream": _only("stream", [False]),
}
_TO_MESSAGE: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "messages": _turns,
    "max_completion_tokens": lambda number: {"max_tokens": number},
    "stop": lambda stop: {"stop_sequences": [stop] if isinstance(stop, str) else stop},
    "tools": lambda tools: {"tools": [_tool(tool) for tool in tools]},
    "tool_choice": _choice_of,
    "parallel_tool_calls": lambda parallel: {"parallel_tool_calls": parallel},
    "response_format": _output_config,
    "n": _only("n", [1]),
    "stream": _only("stream", [False]),
    "logprobs": _only("logprobs", [False]),
}
