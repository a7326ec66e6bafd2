"""Streams: asking for an answer in parts (server-sent events), and making the whole answer of them again.

Runs take answers whole. A load test asks for parts, to see when the first one comes. Source of the shapes: the types of
the `openai` package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from orchestrator import exact_json
from orchestrator.wires.answers import garbled
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_END = b"[DONE]"
_FIELD = b"data:"


class StreamFormat(Protocol):
    """How a server sends the answers of one wire in parts."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The fields of a request that ask for parts."""
        ...

    def has_text(self, event: Mapping[str, Any]) -> bool:
        """Whether the model has written what is in this event."""
        ...

    def whole(self, events: Sequence[Mapping[str, Any]]) -> object:
        """Return the answer as it would have come in one piece. Raises `RequestFailed` if the end of it is missing."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A wire whose server can send an answer in parts."""

    @property
    def stream(self) -> StreamFormat:
        """How it does."""
        ...


def in_parts(form: StreamFormat, body: Body) -> Body:
    """Return the same request for an answer in parts."""
    return Body.of({**exact_json.loads(body.content), **form.settings})


def whole_answer(form: StreamFormat, content: bytes) -> bytes:
    """Return the body that a wire reads, of all parts. A server that has sent an answer whole is fine as well."""
    events = [*_events(content)]
    if not events:
        return content
    for event in events:
        if event.get("error"):
            return exact_json.dumps(event)
    return exact_json.dumps(form.whole(events))


def _events(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        if line.startswith(_FIELD) and (data := line[len(_FIELD) :].strip()) != _END:
            try:
                event = exact_json.loads(data)
            except ValueError as error:
                raise garbled(f"an event of the stream is not JSON: {data[:200].decode(errors='replace')}") from error
            if isinstance(event, dict):
                yield event


class FirstText:
    """Watches the bytes of a stream, and calls `seen` once the first of the model's words are there."""

    def __init__(self, form: StreamFormat, seen: Callable[[], None]) -> None:
        self._form = form
        self._seen: Callable[[], None] | None = seen
        self._rest = b""

    def watch(self, part: bytes) -> None:
        """Look at the next bytes."""
        if self._seen is None:
            return
        lines, end, self._rest = (self._rest + part).rpartition(b"\n")
        if end and any(map(self._form.has_text, _events(lines))):
            self.ended()

    def ended(self) -> None:
        """The answer is there as a whole."""
        if self._seen is not None:
            self._seen()
            self._seen = None


@dataclass(frozen=True, slots=True)
class ChoiceStream:
    """Chats and completions: every event has parts of choices, the last one the tokens.

    `part`: the key of a part in a choice; None if the choice itself has the text. `texts`: what is joined in it.
    """

    part: str | None
    texts: tuple[str, ...]

    @property
    def settings(self) -> Mapping[str, object]:
        """Tokens are counted in an event of their own, if asked for."""
        return {"stream": True, "stream_options": {"include_usage": True}}

    def has_text(self, event: Mapping[str, Any]) -> bool:
        """Whether a choice has any text, or calls a tool."""
        parts = [self._part(choice) for choice in _objects(event.get("choices"))]
        return any(part.get(name) for part in parts for name in (*self.texts, "tool_calls"))

    def whole(self, events: Sequence[Mapping[str, Any]]) -> object:
        """Return the first event, with the joined choices and the tokens."""
        choices = dict[object, dict[str, Any]]()
        for event in events:
            for choice in _objects(event.get("choices")):
                self._join(choices.setdefault(choice.get("index"), {"finish_reason": None}), choice)
        if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
            raise garbled("the stream ends before the answer does")
        usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
        return {**events[0], "choices": [*choices.values()], "usage": usage}

    def _part(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        part = choice if self.part is None else choice.get(self.part)
        return part if isinstance(part, dict) else {}

    def _join(self, choice: dict[str, Any], more: Mapping[str, Any]) -> None:
        joined = choice if self.part is None else choice.setdefault("message", {"role": "assistant", "content": None})
        for name, value in self._part(more).items():
            if name in self.texts and isinstance(value, str):
                joined[name] = (joined.get(name) or "") + value
            elif name == "tool_calls":
                _join_calls(joined.setdefault(name, []), value)
        choice |= {name: more[name] for name in ("index", "finish_reason") if more.get(name) is not None}


def _join_calls(calls: list[dict[str, Any]], parts: object) -> None:
    """Add the parts of tool calls: the first one of each has its name, the others more of its arguments."""
    for part in _objects(parts):
        place, function = part.get("index"), part.get("function")
        call = next((one for one in calls if one["index"] == place), None)
        if call is None:
            calls.append({**part, "function": dict(function) if isinstance(function, dict) else {}})
        elif isinstance(function, dict):
            known = call["function"]
            known["arguments"] = (known.get("arguments") or "") + (function.get("arguments") or "")


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """Responses: the last event has the whole response."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Tokens are counted in any case."""
        return {"stream": True}

    def has_text(self, event: Mapping[str, Any]) -> bool:
        """Whether it is more of a text, or of a tool's arguments."""
        return str(event.get("type")).endswith(".delta") and bool(event.get("delta"))

    def whole(self, events: Sequence[Mapping[str, Any]]) -> object:
        """Return the response of the event with which it has ended."""
        ends = ("response.completed", "response.incomplete", "response.failed")
        found = next((event for event in reversed(events) if event.get("type") in ends), None)
        if found is None:
            raise garbled("the stream ends before the answer does")
        return found.get("response")


def _objects(found: object) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


CHATS = ChoiceStream("delta", ("content", "reasoning_content", "reasoning", "refusal"))
COMPLETIONS = ChoiceStream(None, ("text",))
RESPONSES = ResponseStream()
