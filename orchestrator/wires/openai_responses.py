"""The OpenAI responses wire: `{"model": ..., "input": ...}`.

Source of the shapes: the types of the `openai` package; vLLM and `transformers serve` speak it too. Hugging Face's
router refuses bodies of more than 100 KiB on this route (responses.js, issue 55).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note, tokens_of
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answer_format import AnswerFormat
from orchestrator.wires.answers import bad, decoded, garbled, shown, usage_of, with_usage
from orchestrator.wires.batches import no_streams, one_answer
from orchestrator.wires.endings import check_no_call_is_due, joined_text, reading_by, text_of, with_calls
from orchestrator.wires.routes import joined
from orchestrator.wires.streams import RESPONSES
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from yarl import URL


@dataclass(frozen=True, slots=True)
class OpenAIResponsesWire:
    """A stored request is the user's text, a list of input items, or an object with `input` and any other keys.

    `parameters` are sent with every request (`instructions`, `max_output_tokens` ...); an item's own take precedence.
    The answer is the text of the response's messages; if the model calls tools, it is
    `{"content": TEXT OR NULL, "tool_calls": [...]}` with the items that call them. `response_format`, `extract` and
    `reasks` are as in `OpenAIChatWire`.
    """

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    response_format: Mapping[str, object] | type[BaseModel] | None = None
    extract: Literal["json"] | None = None
    reasks: int = 2
    _format: AnswerFormat = field(init=False, repr=False, compare=False)
    takes_lists = False
    stream = RESPONSES

    def __post_init__(self) -> None:
        no_streams(self.parameters)
        form = AnswerFormat.of(self.response_format, self.extract, self.reasks, "input")
        object.__setattr__(self, "_format", form)

    @property
    def identity(self) -> Mapping[str, object]:
        """Model, parameters and format."""
        about = {"wire": "openai-responses", "wire_model": self.model, "parameters": dict(self.parameters)}
        return {**about, **self._format.identity}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/responses")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for this one request (JSON). `transformers serve` streams unless told not to."""
        (request,) = requests
        said = exact_json.loads(request)
        match said:
            case str() | [*_]:
                own: dict[str, object] = {"input": said}
            case {"input": str() | [*_]}:
                own = said
            case _:
                raise RequestFailed(
                    FailureKind.REJECTED, "a request is a text, a list of input items, or an object with `input`"
                )
        body = {**one_answer({"model": self.model, **self.parameters, **own}), "stream": False}
        if (schema := self._format.schema) is not None:
            text = body.get("text")  # may set the verbosity or a format of its own
            body["text"] = {"format": schema.text_format, **(text if isinstance(text, dict) else {})}
        return Body.of(body)

    def reading(self, requests: Sequence[bytes]) -> OpenAIResponsesWire:
        """Return the wire with the request's own `tool_choice` and `max_output_tokens`."""
        return reading_by(self, requests, "tool_choice", "max_output_tokens")

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the text of all messages, or the JSON in it. A response that has not ended is not an answer.

        Raises `Unfit` if asking again with the reason may help.
        """
        answer = decoded(content, in_part=True)
        match answer:
            case {"status": "completed", "output": [*items]}:
                how: object = "stop"
            case {"status": "incomplete", **rest}:
                how, output = _why_incomplete(rest), rest.get("output")
                items = output if isinstance(output, list) else []
            case {"status": "failed" | "cancelled" | "in_progress" | "queued"}:
                raise garbled(f"no finished response: {shown(answer)}")
            case _:
                raise bad(f"no finished response: {shown(answer)}")
        texts = [text for item in items if isinstance(text := _said(item), str)]
        text = "".join(texts) if texts else None
        usage = usage_of(answer, "input_tokens", "output_tokens")
        if (calls := [item for item in items if calls_a_tool(item)]) and not self._format.is_json:
            return with_usage([with_calls(text, calls, how, limit="max_output_tokens")], *usage)
        if not self._format.is_json:
            check_no_call_is_due(self.parameters, how, limit="max_output_tokens")
        said = text_of(text, how, of=answer, limit="max_output_tokens")
        if self._is_at_limit(usage[1]) and isinstance(said, str) and said and not self._format.is_json:
            said = Answer(said, notes=frozenset({Note.CUT}))
        return self._format.read(said, usage, "max_output_tokens")

    def _is_at_limit(self, tokens_out: object) -> bool:
        """Whether the text used up its tokens: llama.cpp and `transformers serve` call it complete all the same.

        LiteLLM's proxy raises a limit below 16 to 16.
        """
        used, limit = tokens_of(tokens_out), self.parameters.get("max_output_tokens")
        return used is not None and isinstance(limit, int) and used >= limit > 0


def _why_incomplete(answer: Mapping[Any, object]) -> object:
    match answer:
        case {"incomplete_details": {"reason": reason}}:
            return reason
    return "length"


def _said(item: object) -> object:
    """Return the text of a message; other items, such as reasoning, have none."""
    match item:
        case {"type": "message", "content": [*parts]}:
            return joined_text(parts)
    return None


def calls_a_tool(item: object) -> bool:
    """Whether the item calls a tool that is not the server's own."""
    match item:
        case {"type": "function_call" | "custom_tool_call", "name": str()}:
            return True
    return False
