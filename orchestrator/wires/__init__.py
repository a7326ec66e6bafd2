"""Wires: the request and answer formats of servers; one file per format."""

from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.openai_batch import OpenAIBatchWire
from orchestrator.wires.openai_completions import OpenAICompletionsWire
from orchestrator.wires.openai_embeddings import OpenAIEmbeddingsWire
from orchestrator.wires.openai_responses import OpenAIResponsesWire
from orchestrator.wires.raw_json import RawJsonWire
from orchestrator.wires.tei import TeiWire
from orchestrator.wires.tgi import TgiWire
from orchestrator.wires.vllm import VllmRerankWire, VllmScoreWire
from orchestrator.wires.wire import Wire

KINDS = {
    "huggingface": "HuggingFaceWire",
    "openai": "OpenAIChatWire",
    "openai-chat": "OpenAIChatWire",
    "openai-batch": "OpenAIBatchWire",
    "openai-completions": "OpenAICompletionsWire",
    "openai-embeddings": "OpenAIEmbeddingsWire",
    "openai-responses": "OpenAIResponsesWire",
    "tei": "TeiWire",
    "tgi": "TgiWire",
    "vllm-score": "VllmScoreWire",
    "vllm-rerank": "VllmRerankWire",
    "raw-json": "RawJsonWire",
}  # see orchestrator.kinds

__all__ = [
    "HuggingFaceWire",
    "OpenAIBatchWire",
    "OpenAIChatWire",
    "OpenAICompletionsWire",
    "OpenAIEmbeddingsWire",
    "OpenAIResponsesWire",
    "RawJsonWire",
    "TeiWire",
    "TgiWire",
    "VllmRerankWire",
    "VllmScoreWire",
    "Wire",
]
