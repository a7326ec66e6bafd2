"""Reviews -> labels, from a Hugging Face endpoint that is paused while nobody uses it.

The token comes from HF_TOKEN or `hf auth login`. At three dollars the run stops, pauses the endpoint, and says what
finishing would cost.
"""

from orchestrator import Job, Policy
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="label-reviews",
    source=JsonlSource("data/reviews.jsonl", id="id"),
    endpoint=HuggingFaceEndpoint("acme/batch-endpoint"),
    sink=JsonlSink("out/labels.jsonl"),
    policy=Policy(concurrency=32, max_cost=3.00),
)
