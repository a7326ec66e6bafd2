"""The wire of OpenAI batches: bodies as their author wrote them, and the server's bodies as the answers.

Source of the shapes: the types of the `openai` package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, tokens_of
from orchestrator.domain.batch_lines import ROUTES, Route
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, decoded_with_text, garbled, shown, usage_of, whole
from orchestrator.wires.endings import check_no_call_is_due, reading_by
from orchestrator.wires.openai import calls_in
from orchestrator.wires.openai_responses import calls_a_tool
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL

_ANSWERS: Mapping[Route, str] = {  # what an answer has to contain
    "/v1/chat/completions": "choices",
    "/v1/completions": "choices",
    "/v1/embeddings": "data",
    "/v1/responses": "output",
}
_UNFINISHED = ("failed", "cancelled", "in_progress", "queued")  # states of a response without an answer


@dataclass(frozen=True, slots=True)
class OpenAIBatchWire:
    """A stored request is a whole body, which is sent unchanged; the answer is the whole body, stored unchanged.

    `route`: where requests are sent, one of `ROUTES`. `model`: the model that the bodies name.
    Bodies may come from other people, so nothing in them refers to files of this machine.
    `parameters`: those of the request that an answer is checked by, set by `reading`.
    """

    route: Route
    model: str
    parameters: Mapping[str, object] = field(init=False, repr=False, compare=False, default_factory=dict)
    takes_lists = False

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise ValueError(f"route must be one of {', '.join(ROUTES)}, not {self.route!r}")

    @property
    def identity(self) -> Mapping[str, object]:
        """Route and model."""
        return {"wire": "openai-batch", "wire_model": self.model, "route": self.route}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, self.route)

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the request as it is. Raises `RequestFailed` if its answer would come in pieces, or later."""
        (request,) = requests
        match exact_json.loads(request):
            case {"stream": stream} if stream:
                raise RequestFailed(FailureKind.REJECTED, "not sent: answers are taken whole, so leave `stream` out")
            case {"background": later} if later:
                raise RequestFailed(FailureKind.REJECTED, "not sent: the answer is taken at once: no `background`")
            case {}:
                return Body(request)
        raise RequestFailed(FailureKind.REJECTED, "a request is an object, the body that is sent")

    def reading(self, requests: Sequence[bytes]) -> OpenAIBatchWire:
        """Return the wire with the `tool_choice` of the body."""
        return reading_by(self, requests, "tool_choice")

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the response's body. One that has not ended, or lacks what the route returns, is not an answer.

        Nor is one that ended without the call of a tool that the request demands. One that was cut says so itself.
        """
        answer, text = decoded_with_text(content)
        if not isinstance(answer, dict) or not isinstance(answer.get(_ANSWERS[self.route]), list):
            raise bad(f"no {_ANSWERS[self.route]} in the answer: {shown(answer)}")
        if self.route == "/v1/responses" and answer.get("status") in _UNFINISHED:
            raise garbled(f"no finished response: {shown(answer)}")
        if self.route == "/v1/embeddings":
            whole(answer)  # a null among numbers was a NaN
        if self.parameters and _lacks_a_call(answer):
            check_no_call_is_due(self.parameters, "stop", limit="max_tokens")
        names = ("input_tokens", "output_tokens") if self.route == "/v1/responses" else ()
        tokens_in, tokens_out = usage_of(answer, *names)
        return [Answer(answer, tokens_of(tokens_in), tokens_of(tokens_out), text=text)]


def _lacks_a_call(answer: Mapping[Any, object]) -> bool:
    """Whether a response, or a choice of a chat, has ended by itself without the call of a tool."""
    match answer:
        case {"status": "completed", "output": [*items]}:
            return not any(calls_a_tool(item) for item in items)
        case {"choices": [*choices]}:
            return any(_ended_as_text(choice) for choice in choices)
    return False


def _ended_as_text(choice: object) -> bool:
    match choice:
        case {"message": {"refusal": str(refusal)}} if refusal:
            return False
        case {"message": {} as message, "finish_reason": "stop" | None}:
            return not calls_in(message)
    return False
