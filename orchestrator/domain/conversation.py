"""A stored request and its answer as a conversation, if they are one: who said what, with pictures and tool calls.

Knows the shapes of OpenAI's chat completions, completions and responses, a list of messages, and a text alone. Values
come from files and from models, so nothing is taken for granted: what is not recognized becomes `Other`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")  # no SVG: it is a program
_TEXTS = ("text", "input_text", "output_text", "summary_text", "refusal")
_PROMPTS = ("prompt", "inputs", "input", "text")  # where a request that has no messages keeps its text


@dataclass(frozen=True, slots=True)
class Text:
    """Words of a turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the request: a `data:` URL of a format that only holds pixels."""

    url: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for. `arguments`: JSON as the model wrote it, which may be no JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Other:
    """A part in another shape, such as sound or a picture elsewhere."""

    value: object


Part: TypeAlias = Text | Picture | ToolCall | Other


@dataclass(frozen=True, slots=True)
class Turn:
    """What one role says. `note`: why it is special, such as the call that a tool answers."""

    role: str
    parts: Sequence[Part]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The turns of a request. `settings`: everything else in it, such as the model and the temperature."""

    turns: Sequence[Turn]
    settings: Mapping[str, object] = field(default_factory=dict)


def conversation_of(request: object) -> Dialogue | None:
    """Return the conversation in a request; None if it is not one."""
    if isinstance(request, str):
        return Dialogue([Turn("user", [Text(request)])])
    if isinstance(request, list):
        return Dialogue([turn for one in request for turn in _turns(one)]) if _are_messages(request) else None
    if not isinstance(request, Mapping):
        return None
    where = next((name for name in ("messages", *_PROMPTS) if _are_turns(request.get(name))), None)
    if where is None:
        return None
    said, settings = request[where], {name: value for name, value in request.items() if name != where}
    turns = [Turn("user", [Text(said)])] if isinstance(said, str) else [turn for one in said for turn in _turns(one)]
    if isinstance(instructions := settings.get("instructions"), str):  # of OpenAI's responses
        del settings["instructions"]
        turns.insert(0, Turn("system", [Text(instructions)]))
    return Dialogue(turns, settings)


def answer_turns(answer: object) -> list[Turn] | None:
    """Return the turns of an answer; None if it is not said by a model, such as a list of scores."""
    if isinstance(answer, str):
        return [Turn("assistant", [Text(answer)])]
    if not isinstance(answer, Mapping):
        return None
    match answer:
        case {"choices": [*choices]} if choices and all(isinstance(one, Mapping) for one in choices):
            return [turn for one in choices for turn in _choice(one)]
        case {"output": [*items]} if items and all(isinstance(one, Mapping) for one in items):
            return [turn for one in items for turn in _turns(one)]
        case {"content": _, "tool_calls": _}:
            return _turns({"role": "assistant", **answer})
    return None


def _are_turns(said: object) -> bool:
    return isinstance(said, str) or (isinstance(said, list) and _are_messages(said))


def _are_messages(said: Sequence[object]) -> bool:
    return bool(said) and all(isinstance(one, Mapping) and ("role" in one or "type" in one) for one in said)


def _choice(choice: Mapping[str, object]) -> list[Turn]:
    message, ended = choice.get("message"), choice.get("finish_reason")
    note = f"ended: {ended}" if isinstance(ended, str) and ended != "stop" else ""
    if not isinstance(message, Mapping):
        return [Turn("assistant", _parts(choice.get("text")), note)]
    *thoughts, turn = _turns({"role": "assistant", **message})
    return [*thoughts, Turn(turn.role, turn.parts, ", ".join(filter(None, (turn.note, note))))]


def _turns(message: Mapping[str, object]) -> list[Turn]:
    """Return one message, or one item of OpenAI's responses; what a model thought first is a turn of its own."""
    match message.get("type"):
        case "function_call":
            return [Turn("assistant", [_call(message)])]
        case "function_call_output":
            return [Turn("tool", _parts(message.get("output")), _answers(message.get("call_id")))]
        case "reasoning":
            return [_thought(message.get("summary") or message.get("content"))]
    parts = _parts(message.get("content"))
    if isinstance(refusal := message.get("refusal"), str):
        parts.append(Text(refusal))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        parts.append(_call(function) if isinstance(function, Mapping) else Other(call))
    role, name = message.get("role"), message.get("name")
    notes = (name if isinstance(name, str) else "", _answers(message.get("tool_call_id")))
    said = Turn(role if isinstance(role, str) else "unknown", parts, ", ".join(filter(None, notes)))
    thought = message.get("reasoning_content") or message.get("reasoning")
    return [_thought(thought), said] if thought else [said]


def _thought(content: object) -> Turn:
    return Turn("assistant", _parts(content), "reasoning")


def _answers(call: object) -> str:
    return f"answers {call}" if isinstance(call, str) else ""


def _call(function: Mapping[str, object]) -> Part:
    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(name, str) and isinstance(arguments, str):
        return ToolCall(name, arguments)
    return Other(dict(function))


def _parts(content: object) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    return [_part(one) for one in content] if isinstance(content, list) else [Other(content)]


def _part(part: object) -> Part:
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        return Other(part)
    for name in ("text", "refusal"):
        if part.get("type") in _TEXTS and isinstance(part.get(name), str):
            return Text(str(part[name]))
    url = part.get("image_url")
    if isinstance(url, Mapping):
        url = url.get("url")
    return Picture(url) if isinstance(url, str) and _PICTURE.fullmatch(url) else Other(dict(part))
