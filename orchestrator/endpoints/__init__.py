"""The kinds of endpoint, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.endpoints.named import endpoint_from, named
from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.endpoints.command import CommandEndpoint
    from orchestrator.endpoints.engines import LlamaCpp, Sglang, Tei, TransformersServe, Vllm
    from orchestrator.endpoints.hf_job import HuggingFaceJobEndpoint
    from orchestrator.endpoints.hf_space import HuggingFaceSpaceEndpoint
    from orchestrator.endpoints.hf_spec import EndpointSpec
    from orchestrator.endpoints.http import HttpEndpoint
    from orchestrator.endpoints.huggingface import HuggingFaceEndpoint
    from orchestrator.endpoints.local import LocalEndpoint
    from orchestrator.endpoints.local_server import LocalServer
    from orchestrator.endpoints.ray_endpoint import RayEndpoint
    from orchestrator.endpoints.sagemaker import SageMakerEndpoint
    from orchestrator.endpoints.serverless import ServerlessEndpoint

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = words(
        __name__,
        {
            "CommandEndpoint": "orchestrator.endpoints.command",
            "EndpointSpec": "orchestrator.endpoints.hf_spec",
            "HttpEndpoint": "orchestrator.endpoints.http",
            "HuggingFaceEndpoint": "orchestrator.endpoints.huggingface",
            "HuggingFaceJobEndpoint": "orchestrator.endpoints.hf_job",
            "HuggingFaceSpaceEndpoint": "orchestrator.endpoints.hf_space",
            "LlamaCpp": "orchestrator.endpoints.engines",
            "LocalEndpoint": "orchestrator.endpoints.local",
            "LocalServer": "orchestrator.endpoints.local_server",
            "RayEndpoint": "orchestrator.endpoints.ray_endpoint",
            "SageMakerEndpoint": "orchestrator.endpoints.sagemaker",
            "ServerlessEndpoint": "orchestrator.endpoints.serverless",
            "Sglang": "orchestrator.endpoints.engines",
            "Tei": "orchestrator.endpoints.engines",
            "TransformersServe": "orchestrator.endpoints.engines",
            "Vllm": "orchestrator.endpoints.engines",
        },
    )

KINDS = {
    "huggingface": "HuggingFaceEndpoint",
    "huggingface_job": "HuggingFaceJobEndpoint",
    "huggingface_space": "HuggingFaceSpaceEndpoint",
    "sagemaker": "SageMakerEndpoint",
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
    "ray": "RayEndpoint",
}  # see orchestrator.kinds

__all__ = [
    "CommandEndpoint",
    "EndpointSpec",
    "HttpEndpoint",
    "HuggingFaceEndpoint",
    "HuggingFaceJobEndpoint",
    "HuggingFaceSpaceEndpoint",
    "LlamaCpp",
    "LocalEndpoint",
    "LocalServer",
    "RayEndpoint",
    "SageMakerEndpoint",
    "ServerlessEndpoint",
    "Sglang",
    "Tei",
    "TransformersServe",
    "Vllm",
    "endpoint_from",
    "named",
]
