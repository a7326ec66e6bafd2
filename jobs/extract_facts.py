"""Texts -> facts that fit a pydantic model, from any server that speaks OpenAI's chat (vLLM, SGLang, llama.cpp ...).

An answer that does not fit is sent back to the server with what is wrong with it, twice at the most. Here, with reviews
and a server made for it: `python jobs/demo/stand_in.py orchestrator run jobs/extract_facts.py`.
"""

import os

from pydantic import BaseModel, Field

from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import CsvSource
from orchestrator.wires import OpenAIChatWire


class Facts(BaseModel):
    """What is wanted of each review; the server is shown this as a JSON schema."""

    product: str
    complaints: list[str]
    stars: int = Field(ge=1, le=5)


job = Job(
    name="extract-facts",
    source=CsvSource("data/reviews.csv", id="review_id"),
    request="{title}\n\n{body}",
    endpoint=HttpEndpoint(
        os.environ.get("CHAT_URL", "http://localhost:8000"),
        wire=OpenAIChatWire(
            os.environ.get("CHAT_MODEL", "acme/model"),
            {"temperature": 0, "max_tokens": 512},
            system="Extract the facts from the review. Answer with JSON.",
            response_format=Facts,
        ),
    ),
    sink=JsonlSink("out/facts.jsonl", keep=["title"]),
    policy=Policy(concurrency=32),
)
