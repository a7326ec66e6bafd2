"""The wires for vLLM's own routes: scores of pairs, and documents ranked by relevance.

Source of the shapes: its `entrypoints/pooling/scoring/protocol.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, by_index, decoded, shown, usage_of, with_usage
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL


@dataclass(frozen=True, slots=True)
class VllmScoreWire:
    """A stored request is a pair of texts, or an object with `text_1` and `text_2`. The answer is a number."""

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = True

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "vllm-score", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/score")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for these pairs: two lists of the same length."""
        pairs = [_pair(exact_json.loads(request)) for request in requests]
        left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return Body.of({"model": self.model, **self.parameters, "text_1": left, "text_2": right})

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the scores by their index."""
        answer = decoded(content, in_part=True)
        data = answer.get("data") if isinstance(answer, dict) else None
        return with_usage(by_index(data, count, _score), usage_of(answer)[0])


@dataclass(frozen=True, slots=True)
class VllmRerankWire:
    """A stored request is an object with `query` and `documents` (and parameters, such as `top_n`).

    The answer is `[{"index", "relevance_score", "document"}, ...]`, best first. Jina and Cohere use the same shape.
    """

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = False

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "vllm-rerank", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/rerank")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for this one request (JSON)."""
        (request,) = requests
        said = exact_json.loads(request)
        match said:
            case {"query": _, "documents": [*_]}:
                return Body.of({"model": self.model, **self.parameters, **said})
        raise RequestFailed(FailureKind.REJECTED, "a request is an object with `query` and `documents`")

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the results unchanged."""
        answer = decoded(content)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or not all(_is_result(result) for result in results):
            raise bad(f"no results in the answer: {shown(answer)}")
        return with_usage([results], usage_of(answer)[0])


def _pair(said: object) -> tuple[object, object]:
    match said:
        case [left, right] | {"text_1": left, "text_2": right} if list not in {type(left), type(right)}:
            return left, right
    raise RequestFailed(FailureKind.REJECTED, "a request is a pair of texts, or an object with `text_1` and `text_2`")


def _score(entry: object) -> object:
    match entry:
        case {"score": int() | float() as score} if not isinstance(score, bool):
            return score
    raise bad(f"no score in {shown(entry)}")


def _is_result(result: object) -> bool:
    match result:
        case {"index": int(), "relevance_score": int() | float()}:
            return True
    return False
