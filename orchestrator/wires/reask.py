"""Asking once; and again, a bounded number of times, where an answer is whole and not what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, tokens_of
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.wire import Body, ReadsByRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from orchestrator.ports import Again
    from orchestrator.wires.wire import Wire


class Unfit(RequestFailed):
    """A `BAD_ANSWER` that may be mended `reasks` times: `said` does not fit, for this reason; `usage` was paid.

    `turns`: the key of the conversation in the body that was sent.
    """

    def __init__(
        self, reason: str, said: str, reasks: int, usage: Sequence[object], turns: Literal["messages", "input"]
    ) -> None:
        super().__init__(FailureKind.BAD_ANSWER, f"the answer does not fit: {reason}", status=200)
        self.reason = reason
        self.said = said
        self.reasks = reasks
        self.usage = usage
        self.turns = turns

    def again(self, body: Body) -> Body:
        """The conversation, with the answer and what is wrong with it. A bare text is what the user said."""
        fields = exact_json.loads(body.content)
        before = fields[self.turns]
        turns = [{"role": "user", "content": before}] if isinstance(before, str) else before
        fields[self.turns] = [
            *turns,
            self._said(len(turns)),
            {
                "role": "user",
                "content": f"This does not fit what was asked for: {self.reason}. "
                "Answer again with the corrected JSON and nothing else.",
            },
        ]
        return Body.of(fields)

    def _said(self, place: int) -> dict[str, object]:
        if self.turns == "messages":
            return {"role": "assistant", "content": self.said}
        # in full, as servers say it: llama.cpp asks for the type, vLLM for all the rest, OpenAI for ids of this kind
        part = {"type": "output_text", "text": self.said, "annotations": []}
        about = {"type": "message", "id": f"msg_{place}", "role": "assistant", "status": "completed"}
        return {**about, "content": [part]}


async def asked(
    wire: Wire, requests: Sequence[bytes], post: Callable[[Body], Awaitable[bytes]], again: Again | None = None
) -> list[object]:
    """One entry per request: a value, an `Answer`, or a `RequestFailed`. Tokens of every ask are counted.

    `again` says, in its time, whether one more request may be made.
    """
    try:
        body, unfit = await wire.pack(requests), list[Unfit]()
    except RequestFailed as refusal:
        refusal.sent = False
        raise
    reader = wire.reading(requests) if isinstance(wire, ReadsByRequest) else wire
    while True:
        content = await post(body)
        try:
            entries = reader.unpack(content, len(requests))
        except Unfit as refusal:
            unfit.append(refusal)
            if len(unfit) > refusal.reasks or (again is not None and not await again()):
                refusal.tokens = sum(_tokens(unfit, which) for which in (0, 1))
                raise
            body = refusal.again(body)
        else:
            return [_with_all_tokens(entry, unfit) for entry in entries] if unfit else entries


async def refusal_of(wire: Wire, request: bytes) -> RequestFailed | None:
    """Why the wire does not take this request, for its own sake; None where it does."""
    try:
        await wire.pack([request])
    except RequestFailed as refusal:
        return refusal if refusal.kind is FailureKind.REJECTED else None
    except Exception:  # noqa: BLE001 - whatever nobody foresaw is told where the request is asked
        return None
    return None


def _with_all_tokens(entry: object, unfit: Sequence[Unfit]) -> object:
    if not isinstance(entry, Answer):
        return entry
    return Answer(
        entry.value,
        None if entry.tokens_in is None else entry.tokens_in + _tokens(unfit, 0),
        None if entry.tokens_out is None else entry.tokens_out + _tokens(unfit, 1),
        entry.notes,
    )


def _tokens(unfit: Sequence[Unfit], which: int) -> int:
    return sum(tokens_of(refusal.usage[which]) or 0 for refusal in unfit)
