"""Wires: the request and answer formats of servers; one file per format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.wires.gradio import GradioWire
    from orchestrator.wires.huggingface import HuggingFaceWire
    from orchestrator.wires.openai import OpenAIChatWire
    from orchestrator.wires.openai_batch import OpenAIBatchWire
    from orchestrator.wires.openai_completions import OpenAICompletionsWire
    from orchestrator.wires.openai_embeddings import OpenAIEmbeddingsWire
    from orchestrator.wires.openai_responses import OpenAIResponsesWire
    from orchestrator.wires.openai_transcriptions import OpenAITranscriptionsWire
    from orchestrator.wires.raw_json import RawJsonWire
    from orchestrator.wires.tei import TeiWire
    from orchestrator.wires.tgi import TgiWire
    from orchestrator.wires.vllm import VllmRerankWire, VllmScoreWire
    from orchestrator.wires.wire import Wire

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = words(
        __name__,
        {
            "GradioWire": "orchestrator.wires.gradio",
            "HuggingFaceWire": "orchestrator.wires.huggingface",
            "OpenAIBatchWire": "orchestrator.wires.openai_batch",
            "OpenAIChatWire": "orchestrator.wires.openai",
            "OpenAICompletionsWire": "orchestrator.wires.openai_completions",
            "OpenAIEmbeddingsWire": "orchestrator.wires.openai_embeddings",
            "OpenAIResponsesWire": "orchestrator.wires.openai_responses",
            "OpenAITranscriptionsWire": "orchestrator.wires.openai_transcriptions",
            "RawJsonWire": "orchestrator.wires.raw_json",
            "TeiWire": "orchestrator.wires.tei",
            "TgiWire": "orchestrator.wires.tgi",
            "VllmRerankWire": "orchestrator.wires.vllm",
            "VllmScoreWire": "orchestrator.wires.vllm",
            "Wire": "orchestrator.wires.wire",
        },
    )

KINDS = {
    "huggingface": "HuggingFaceWire",
    "openai": "OpenAIChatWire",
    "openai-chat": "OpenAIChatWire",
    "openai-batch": "OpenAIBatchWire",
    "openai-completions": "OpenAICompletionsWire",
    "openai-embeddings": "OpenAIEmbeddingsWire",
    "openai-responses": "OpenAIResponsesWire",
    "openai-transcriptions": "OpenAITranscriptionsWire",
    "tei": "TeiWire",
    "tgi": "TgiWire",
    "vllm-score": "VllmScoreWire",
    "vllm-rerank": "VllmRerankWire",
    "gradio": "GradioWire",
    "raw-json": "RawJsonWire",
}  # see orchestrator.kinds

__all__ = [
    "GradioWire",
    "HuggingFaceWire",
    "OpenAIBatchWire",
    "OpenAIChatWire",
    "OpenAICompletionsWire",
    "OpenAIEmbeddingsWire",
    "OpenAIResponsesWire",
    "OpenAITranscriptionsWire",
    "RawJsonWire",
    "TeiWire",
    "TgiWire",
    "VllmRerankWire",
    "VllmScoreWire",
    "Wire",
]
