"""The raw JSON wire: for any server that takes one JSON body and answers with another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.request import MissingColumn, Renderer
from orchestrator.wires import files
from orchestrator.wires.answers import bad, decoded, exact, shown, whole
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL


@dataclass(frozen=True, slots=True)
class RawJsonWire:
    """`path`: added to the endpoint's URL; without it, the URL is used unchanged.

    `body`: a template as in `Job.request`. `{request}` is the stored request, `{name}` its value under that name if it
    is an object. Without `body`, the stored request is the body. Files become base64.
    `answer`: the place of the item's answer in the response, such as "data.0.text"; without it, the whole response.
    """

    path: str = ""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    body: object = None
    answer: str = ""
    _render: Renderer = field(init=False, repr=False, compare=False)
    takes_lists = False

    def __post_init__(self) -> None:
        if self.method not in {"POST", "PUT", "PATCH"}:
            raise ValueError(f"method must be POST, PUT or PATCH, not {self.method!r}")
        object.__setattr__(self, "_render", Renderer("{request}" if self.body is None else self.body))

    @property
    def identity(self) -> Mapping[str, object]:
        """All of it."""
        about = {"path": self.path, "method": self.method, "body": self.body, "answer": self.answer}
        return {"wire": "raw-json", **about}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, self.path) if self.path else base

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for this one request (JSON)."""
        (request,) = requests
        body: object = exact_json.loads(request)
        if files.MARK in request:
            body = await files.with_base64(body)
        if self.body is not None:
            body = self._rendered(body)
        return Body(exact_json.dumps(body), method=self.method)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the value at the place that `answer` names."""
        value = decoded(content, in_part=bool(self.answer))
        for step in self.answer.split(".") if self.answer else ():
            value = _within(value, step, self.answer)
        return [whole(exact(value))]

    def _rendered(self, request: object) -> object:
        own = request if isinstance(request, dict) else {}
        try:
            return self._render({**own, "request": request})
        except MissingColumn as missing:
            raise RequestFailed(FailureKind.REJECTED, f"the request has no {missing.column!r}") from missing
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise RequestFailed(FailureKind.REJECTED, f"the body cannot be made: {error}") from error


def _within(value: object, step: str, path: str) -> object:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    raise bad(f"nothing at {path!r} in the answer, because {step!r} is missing: {shown(value)}")
