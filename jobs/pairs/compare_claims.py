"""Pairs of claims -> whether they agree, with a pipeline that `pair_classification.py`, beside this file, registers.

First `python jobs/pairs/prepare.py`, which trains the model. The model's folder carries a copy of the pipeline, too:
without `imports` it would be run with `trust_remote_code=True`.
"""

from orchestrator import Job
from orchestrator.endpoints import LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="compare-claims",
    source=JsonlSource("data/claims.jsonl", id="id"),
    request={"text": "{text}", "second_text": "{second_text}"},
    endpoint=LocalEndpoint("data/pair-classifier", task="pair-classification", imports=["pair_classification"]),
    sink=JsonlSink("out/agreement.jsonl", keep=["text", "second_text", "expected"]),
)
