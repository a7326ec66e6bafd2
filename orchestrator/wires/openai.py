"""The OpenAI chat wire: `{"model": ..., "messages": [...]}`, one conversation in a request.

A stored request is a string (what the user says), a list of messages, or an object with `messages` and whatever else
the server shall see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.huggingface import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class OpenAIChatWire:
    """`parameters` go with every request (`temperature`, `max_tokens` ...); an item's own win over them."""

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """The body that asks for this one request (canonical JSON)."""
        (request,) = requests
        said = orjson.loads(request)
        match said:
            case str():
                own: dict[str, object] = {"messages": [{"role": "user", "content": said}]}
            case [*_]:
                own = {"messages": said}
            case {"messages": [*_]}:
                own = said
            case _:
                raise RequestFailed(
                    FailureKind.REJECTED, "a chat request is a text, a list of messages, or an object with `messages`"
                )
        return Body(orjson.dumps({"model": self.model, **self.parameters, **own}))

    def unpack(self, content: bytes, count: int) -> list[object]:  # noqa: ARG002 - it is always one
        """The text of the first choice. Raises `RequestFailed` for anything that has none."""
        try:
            answer: object = orjson.loads(content)
        except ValueError as error:
            raise _no_answer(content) from error
        match answer:
            case {"choices": [{"message": {"content": str(text)}}, *_]}:
                return [text]
        raise _no_answer(content)


def _no_answer(content: bytes) -> RequestFailed:
    head = content[:200].decode(errors="replace")
    return RequestFailed(FailureKind.BAD_ANSWER, f"no choices[0].message.content in the answer: {head}", status=200)
