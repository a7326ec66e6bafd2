"""Reviews -> labels, from a Hugging Face endpoint that is paused while nobody uses it.

The token comes from HF_TOKEN or `hf auth login`. At three dollars the run stops, pauses the endpoint, and says what
finishing would cost. Here, with reviews that are made for it, and an endpoint that costs nothing:
`python jobs/demo/stand_in.py orchestrator run jobs/label_reviews.py`.
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
