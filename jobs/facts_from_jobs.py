"""Texts -> facts that fit a pydantic model, from vLLM on two GPUs that exist only while this runs: Hugging Face Jobs.

The token comes from HF_TOKEN or `hf auth login`. Two jobs are created, asked as soon as the first one answers, and
cancelled; if everything dies, Hugging Face ends them after two hours, or when three dollars are spent. Here, with
reviews that are made for it, and jobs that cost nothing:
`python jobs/demo/stand_in.py orchestrator run jobs/facts_from_jobs.py`.
"""

from pydantic import BaseModel, Field

from orchestrator import Job, Policy
from orchestrator.endpoints import HuggingFaceJobEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import CsvSource
from orchestrator.wires import OpenAIChatWire

MODEL = "Qwen/Qwen3-8B"


class Facts(BaseModel):
    """What is wanted of each review; the server is shown this as a JSON schema."""

    product: str
    complaints: list[str]
    stars: int = Field(ge=1, le=5)


job = Job(
    name="facts-from-jobs",
    source=CsvSource("data/reviews.csv", id="review_id"),
    request="{title}\n\n{body}",
    endpoint=HuggingFaceJobEndpoint.vllm(
        "acme/facts",
        MODEL,
        flavor="l4x1",
        replicas=2,
        timeout="2h",
        wire=OpenAIChatWire(
            MODEL,
            {"temperature": 0, "max_tokens": 512},
            system="Extract the facts from the review. Answer with JSON.",
            response_format=Facts,
        ),
    ),
    sink=JsonlSink("out/facts_from_jobs.jsonl", keep=["title"]),
    policy=Policy(max_cost=3.00),
)
