"""Every night: what is new in a folder, within a window and a budget; somebody is told when it fails.

By day, with an endpoint that costs nothing, and reviews that are made for it:
`python jobs/demo/stand_in.py orchestrator run jobs/nightly_reviews.py --set policy.window=00:00-24:00`.
"""

from orchestrator import Cron, Job, Policy, Webhook
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="nightly-reviews",
    source=JsonlSource("in/*.jsonl", id="id"),
    endpoint=HuggingFaceEndpoint("acme/batch-endpoint"),
    sink=JsonlSink("out/{date}-{run}.jsonl"),
    policy=Policy(window="22:00-06:00 Europe/Paris", max_cost_per_day=3.00),
    schedule=Cron("30 22 * * *", tz="Europe/Paris"),
    incremental=True,  # each night takes what is new
    on_failure=Webhook("https://chat.example.com/hook", secret_env="CHAT_SECRET"),
)
