"""The OpenAI embeddings wire: `{"model": ..., "input": [...]}`, a vector for each text.

Source of the shapes: the types of the `openai` package; vLLM, SGLang, TEI, Infinity and llama.cpp serve it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.wires.answers import by_index, decoded, floats, usage_of, vector, with_usage
from orchestrator.wires.batches import gathered, texts_or_tokens
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL


@dataclass(frozen=True, slots=True)
class OpenAIEmbeddingsWire:
    """A stored request is the text, or an object with `input` and parameters. The answer is a list of numbers.

    With `parameters={"encoding_format": "base64"}`, answers are a third as long if the server supports it; they are
    decoded to lists here.
    """

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = True

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "openai-embeddings", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/embeddings")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for these requests."""
        fields = gathered(requests, "input", self.parameters)
        texts_or_tokens(fields["input"])
        return Body.of({"model": self.model, **fields})

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the vectors by their index."""
        answer = decoded(content, in_part=True)
        data = answer.get("data") if isinstance(answer, dict) else None
        return with_usage(by_index(data, count, _embedding), usage_of(answer)[0])


def _embedding(entry: object) -> object:
    match entry:
        case {"embedding": str(text)}:
            return floats(text)
        case {"embedding": numbers}:
            return vector(numbers)
    return vector(entry)
