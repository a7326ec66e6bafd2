"""The kinds of wire there are, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

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
    from collections.abc import Mapping

    from orchestrator.wires.wire import Wire


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
