"""The wire for text-generation-inference's own route: `{"inputs": ..., "parameters": {...}}` to /generate.

Source of the shapes: its `router/src/lib.rs` (3.3). Its chat is OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, decoded, shown, whole, with_usage
from orchestrator.wires.batches import no_streams, one_answer
from orchestrator.wires.endings import text_of
from orchestrator.wires.routes import joined, without_version
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from yarl import URL


@dataclass(frozen=True, slots=True)
class TgiWire:
    """A stored request is the prompt, or an object with `inputs` and `parameters`. The answer is the generated text.

    `details` are requested unless `parameters` say otherwise: without them, the server does not report how many tokens
    it generated, or that it was cut at `max_new_tokens`. `decoder_input_details` makes it report how many it read.
    """

    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = False

    def __post_init__(self) -> None:
        no_streams(self.parameters)

    @property
    def identity(self) -> Mapping[str, object]:
        """The parameters; the server has one model."""
        return {"wire": "tgi", "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL; `/v1` is for its OpenAI routes."""
        return joined(without_version(base), "generate")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for this one request (JSON)."""
        (request,) = requests
        said = exact_json.loads(request)
        match said:
            case str():
                fields: dict[str, object] = {"inputs": said}
            case {"inputs": str()}:
                fields = one_answer(dict(said))
            case _:
                raise RequestFailed(FailureKind.REJECTED, "a request is a text, or an object with a text as `inputs`")
        own = fields.get("parameters")
        parameters = one_answer({"details": True, **self.parameters, **(own if isinstance(own, Mapping) else {})})
        return Body.of(fields | {"parameters": parameters})

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the generated text; the server's root route answers with a list."""
        answer: Any = whole(decoded(content, in_part=True))
        match answer:
            case [{"generated_text": str(text)} as entry] | ({"generated_text": str(text)} as entry):
                details = entry.get("details")
                how = details.get("finish_reason") if isinstance(details, dict) else None
                said = text_of(text, how, of=entry, limit="max_new_tokens")
                return with_usage([said], *_tokens(details))
        raise bad(f"no generated_text in the answer: {shown(answer)}")


def _tokens(details: object) -> tuple[object, object]:
    if not isinstance(details, Mapping):
        return None, None
    read = details.get("prefill")
    return len(read) if isinstance(read, list) and read else None, details.get("generated_tokens")
