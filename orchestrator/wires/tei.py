"""The wire for text-embeddings-inference's own routes.

Source of the shapes: its `router/src/http/types.rs` (1.9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, decoded, in_order, shown, vector
from orchestrator.wires.batches import gathered
from orchestrator.wires.routes import joined, without_version
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from yarl import URL

Route: TypeAlias = Literal["embed", "embed_all", "embed_sparse", "predict", "rerank", "similarity"]


@dataclass(frozen=True, slots=True)
class TeiWire:
    """`parameters` are sent beside the inputs (`truncate`, `normalize`, `raw_scores` ...); an item's own win.

    | route | a stored request | its answer |
    |---|---|---|
    | embed | a text | a vector |
    | embed_all | a text | a vector for each token |
    | embed_sparse | a text | `[{"index", "value"}, ...]` |
    | predict | a text, or a pair of texts | `[{"label", "score"}, ...]` |
    | rerank | `{"query", "texts"}` | `[{"index", "score"}, ...]`, best first |
    | similarity | `{"source_sentence", "sentences"}` | a number for each sentence |

    A text may also be an object with `inputs` and parameters. All but the last two take several items per request.
    """

    route: Route
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.route not in _CHECKS:
            raise ValueError(f"route must be one of {', '.join(_CHECKS)}, not {self.route!r}")

    @property
    def takes_lists(self) -> bool:
        """Whether one request can carry several items."""
        return self.route not in _ALONE

    @property
    def identity(self) -> Mapping[str, object]:
        """Route and parameters; the server has one model."""
        return {"wire": "tei", "route": self.route, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL; `/v1` is for its OpenAI routes."""
        return joined(without_version(base), self.route)

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for these requests."""
        if not self.takes_lists:
            (request,) = requests
            return Body.of({**self.parameters, **self._alone(exact_json.loads(request))})
        fields = gathered(requests, "inputs", self.parameters)
        if self.route == "predict":  # a list of texts would be one pair
            inputs = fields["inputs"]
            fields["inputs"] = [_texts(entry) for entry in inputs] if isinstance(inputs, list) else inputs
        return Body.of(fields)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the answers in the requests' order; an invalid one fails alone."""
        answer, check = decoded(content), _CHECKS[self.route]
        return in_order(answer, count, check) if self.takes_lists else [check(answer)]

    def _alone(self, said: Any) -> Mapping[str, object]:
        match self.route, said:
            case "rerank", {"query": str(), "texts": [*_]}:
                return dict(said)
            case "similarity", {"inputs": {"source_sentence": str(), "sentences": [*_]}}:
                return dict(said)
            case "similarity", {"source_sentence": str(), "sentences": [*_]}:
                return {"inputs": said}
        wanted = "`query` and `texts`" if self.route == "rerank" else "`source_sentence` and `sentences`"
        raise RequestFailed(FailureKind.REJECTED, f"a request of {self.route} is an object with {wanted}")


def _texts(entry: object) -> object:
    return [entry] if isinstance(entry, str) else entry


def _objects(number: str, other: str, kind: type) -> Callable[[object], object]:
    """Return a check for a list of `{<number>: 0.5, <other>: ...}`."""

    def check(value: object) -> object:
        fits = isinstance(value, list) and all(
            isinstance(entry, dict) and type(entry.get(number)) in {int, float} and type(entry.get(other)) is kind
            for entry in value
        )
        if not fits:
            raise bad(f"not a list of objects with {other} and {number}: {shown(value)}")
        return value

    return check


def _vectors(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise bad(f"not a list of vectors: {shown(value)}")
    return [vector(entry) for entry in value]


_CHECKS: Mapping[str, Callable[[object], object]] = {
    "embed": vector,
    "embed_all": _vectors,
    "embed_sparse": _objects("value", "index", int),
    "predict": _objects("score", "label", str),
    "rerank": _objects("score", "index", int),
    "similarity": vector,
}
_ALONE = {"rerank", "similarity"}
