"""Facts -> star ratings of the complaints: a job whose rows are the results of another job, extract_facts.py.

The answers go from job to job in the ledger, without a file. A queued run of this job waits for the facts (`after`).
Here, once extract_facts.py has run: `python jobs/demo/stand_in.py orchestrator run jobs/rate_complaints.py`.
"""

import os

from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import RunSource

job = Job(
    name="rate-complaints",
    source=RunSource("extract-facts"),
    after="extract-facts",
    request={"inputs": "{output[product]}: {output[complaints]}", "parameters": {"top_k": 1}},
    endpoint=HttpEndpoint(os.environ.get("REVIEWS_URL", "http://localhost:8080/"), token_env="REVIEWS_TOKEN"),
    sink=JsonlSink("out/complaints.jsonl", keep=["title"]),
    policy=Policy(concurrency=16),
)
