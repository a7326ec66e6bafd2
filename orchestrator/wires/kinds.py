"""Wire: what a format of requests and answers has to offer; and the kinds there are, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from orchestrator.domain.errors import UsageError
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.openai_completions import OpenAICompletionsWire
from orchestrator.wires.openai_embeddings import OpenAIEmbeddingsWire
from orchestrator.wires.openai_responses import OpenAIResponsesWire
from orchestrator.wires.raw_json import RawJsonWire
from orchestrator.wires.tei import TeiWire
from orchestrator.wires.tgi import TgiWire
from orchestrator.wires.vllm import VllmRerankWire, VllmScoreWire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL

    from orchestrator.wires.body import Body


class Wire(Protocol):
    """A format of requests and answers; a frozen value usable in a job file. It keeps nothing and asks nobody."""

    @property
    def takes_lists(self) -> bool:
        """Whether several items can share a request."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """Everything about it that shapes an answer, as JSON: `wire` is its kind, `wire_model` the model it names."""
        ...

    def url(self, base: URL) -> URL:
        """The URL that is asked, on a server with this base URL; the same where the base is that URL already."""
        ...

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """The body that asks for these requests (JSON each) at once. `RequestFailed` where they make none."""
        ...

    def unpack(self, content: bytes, count: int) -> list[object]:
        """What a body that came with a 200 answers to so many requests, in their order.

        An entry is a value, an `Answer` (a value and its tokens), or the `RequestFailed` of that request alone. Raises
        `RequestFailed` where no request can be told from the others; nothing else, whatever the body is.
        """
        ...


WIRES: Mapping[str, type[Any]] = {
    "huggingface": HuggingFaceWire,
    "openai": OpenAIChatWire,
    "openai-chat": OpenAIChatWire,
    "openai-completions": OpenAICompletionsWire,
    "openai-embeddings": OpenAIEmbeddingsWire,
    "openai-responses": OpenAIResponsesWire,
    "tei": TeiWire,
    "tgi": TgiWire,
    "vllm-score": VllmScoreWire,
    "vllm-rerank": VllmRerankWire,
    "raw-json": RawJsonWire,
}


def for_batches(wire: Wire, batch_size: int | Literal["auto"] | None) -> Wire:
    """The wire that carries so many items in one request. `UsageError` where it cannot; "auto" is then one."""
    if batch_size in {None, 1} or (batch_size == "auto" and not wire.takes_lists):
        return wire
    if not wire.takes_lists:
        raise UsageError(
            f"a request of the wire {wire.identity['wire']} holds one item, so policy.batch_size cannot be {batch_size}"
        )
    return replace(wire, lists=True) if isinstance(wire, HuggingFaceWire) else wire
