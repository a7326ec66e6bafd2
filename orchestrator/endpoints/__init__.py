"""The kinds of endpoint, one file each."""

from orchestrator.endpoints.command import CommandEndpoint
from orchestrator.endpoints.engines import LlamaCpp, Sglang, Tei, TransformersServe, Vllm
from orchestrator.endpoints.hf_job import HuggingFaceJobEndpoint
from orchestrator.endpoints.hf_spec import EndpointSpec
from orchestrator.endpoints.http import HttpEndpoint
from orchestrator.endpoints.huggingface import HuggingFaceEndpoint
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_server import LocalServer
from orchestrator.endpoints.named import endpoint_from, named
from orchestrator.endpoints.serverless import ServerlessEndpoint

KINDS = {
    "huggingface": "HuggingFaceEndpoint",
    "huggingface_job": "HuggingFaceJobEndpoint",
    "http": "HttpEndpoint",
    "command": "CommandEndpoint",
    "serverless": "ServerlessEndpoint",
    "local": "LocalEndpoint",
    "local_server": "LocalServer",
    "vllm": "Vllm",
    "sglang": "Sglang",
    "tei": "Tei",
    "llama_cpp": "LlamaCpp",
    "transformers_serve": "TransformersServe",
}  # see orchestrator.kinds

__all__ = [
    "CommandEndpoint",
    "EndpointSpec",
    "HttpEndpoint",
    "HuggingFaceEndpoint",
    "HuggingFaceJobEndpoint",
    "LlamaCpp",
    "LocalEndpoint",
    "LocalServer",
    "ServerlessEndpoint",
    "Sglang",
    "Tei",
    "TransformersServe",
    "Vllm",
    "endpoint_from",
    "named",
]
