"""The OpenAI chat wire: `{"model": ..., "messages": [...]}`, one conversation per request.

Source of the shapes: the types of the `openai` package. vLLM, SGLang, TGI, llama.cpp, `transformers serve` and Hugging
Face's router speak it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import exact_json
from orchestrator.domain.answer import Note
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires import files
from orchestrator.wires.answer_format import AnswerFormat
from orchestrator.wires.answers import bad, decoded, noting, refused, usage_of, with_usage
from orchestrator.wires.batches import no_streams, one_answer
from orchestrator.wires.endings import check_no_call_is_due, joined_text, no_error, reading_by, text_of, with_calls
from orchestrator.wires.routes import joined
from orchestrator.wires.streams import CHATS
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from yarl import URL


@dataclass(frozen=True, slots=True)
class OpenAIChatWire:
    """A stored request is the user's text, a list of messages, or an object with `messages` and any other keys.

    Files in messages are sent as `data:` URLs of images. The answer is the text of the choice, with its text parts
    joined. If the model calls tools, it is `{"content": TEXT OR NULL, "tool_calls": [...]}`, with the server's calls.
    `parameters` are sent with every request (`temperature`, `max_tokens` ...); an item's own take precedence.
    `system`: the first message, unless the request has a system message of its own.
    `response_format`: a JSON schema or a pydantic model; the answer is then JSON that matches it. The schema is sent,
    and a mismatch is sent back with the reason, at most `reasks` times; each of these requests is paid for.
    `extract`: "json" takes the object or list out of the text, wherever it is.
    """

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    system: str | None = None
    response_format: Mapping[str, object] | type[BaseModel] | None = None
    extract: Literal["json"] | None = None
    reasks: int = 2
    _format: AnswerFormat = field(init=False, repr=False, compare=False)
    takes_lists = False
    stream = CHATS

    def __post_init__(self) -> None:
        no_streams(self.parameters)
        form = AnswerFormat.of(self.response_format, self.extract, self.reasks, "messages")
        object.__setattr__(self, "_format", form)

    @property
    def identity(self) -> Mapping[str, object]:
        """Model, parameters, system message and format; named "openai", as in existing ledgers."""
        system = {} if self.system is None else {"system": self.system}
        about = {"wire": "openai", "wire_model": self.model, "parameters": dict(self.parameters)}
        return {**about, **system, **self._format.identity}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/chat/completions")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for this one request (JSON)."""
        (request,) = requests
        own = _conversation(exact_json.loads(request))
        if files.MARK in request:
            own["messages"] = await files.with_data_urls(own["messages"])
        match own["messages"]:
            case [{"role": "system" | "developer"}, *_]:
                pass
            case [*messages] if self.system is not None:
                own["messages"] = [{"role": "system", "content": self.system}, *messages]
            case []:
                raise RequestFailed(FailureKind.REJECTED, "not sent: a chat without messages")  # llama.cpp makes one up
        schema = self._format.schema
        wanted = {} if schema is None else {"response_format": schema.response_format}
        return Body.of(one_answer({"model": self.model, **wanted, **self.parameters, **own}))

    def reading(self, requests: Sequence[bytes]) -> OpenAIChatWire:
        """Return the wire with the request's own `tool_choice`."""
        return reading_by(self, requests, "tool_choice")

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the choice's text, or the JSON in it. Raises `Unfit` if asking again with the reason may help."""
        answer = decoded(content, in_part=True)
        match answer:
            case {"choices": [{"message": {} as message} as choice, *others]}:
                pass
            case _:
                raise bad(f"no choices[0].message in the answer: {content[:200].decode(errors='replace')}")
        if isinstance(refusal := message.get("refusal"), str) and refusal:
            raise refused(refusal)
        no_error(message)
        text, how = joined_text(message.get("content")), choice.get("finish_reason")
        if text == "" and (message.get("reasoning_content") or message.get("reasoning")):
            text = None  # as vLLM has it if a model only reasoned; llama.cpp has an empty text
        if (calls := calls_in(message)) and not self._format.is_json:
            read = with_usage([with_calls(text, calls, how, limit="max_tokens")], *usage_of(answer))
        else:
            if not self._format.is_json:
                check_no_call_is_due(self.parameters, how, limit="max_tokens")
            said = text_of(text, how, of=choice, limit="max_tokens")
            read = self._format.read(said, usage_of(answer), "max_tokens")
        return [noting(entry, Note.FIRST) for entry in read] if others else read


def calls_in(message: Mapping[Any, object]) -> list[object]:
    """Return the model's tool calls, unchanged. The older `function_call` becomes one of them."""
    match message:
        case {"tool_calls": [_, *_] as calls}:
            return list(calls)
        case {"function_call": {"name": _} as function}:
            return [{"type": "function", "function": function}]
    return []


def _conversation(said: Any) -> dict[str, Any]:
    if files.is_file(said) or isinstance(said, str):
        return {"messages": [{"role": "user", "content": said}]}
    match said:
        case [*messages] | {"messages": [*messages]} if all(isinstance(message, dict) for message in messages):
            return dict(said) if isinstance(said, dict) else {"messages": messages}
    raise RequestFailed(
        FailureKind.REJECTED, "a chat request is a text, a list of messages, or an object with `messages`"
    )
