"""Reviews -> star ratings, from a text-classification server that somebody else keeps running.

The server speaks the shape of Hugging Face: POST {"inputs": ..., "parameters": ...}, with a token from the environment.
Here, with reviews and a server made for it: `python jobs/demo/stand_in.py orchestrator run jobs/ask_server.py`.
"""

import os

from orchestrator import Job, Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import CsvSink
from orchestrator.sources import CsvSource


def best_label(answer: object) -> object:
    """Take the likeliest of [{"label": ..., "score": ...}, ...]; raising discards the item, with this reason."""
    if not isinstance(answer, list) or not answer:
        raise ValueError(f"expected a list of labels, not {answer!r}")
    return max(answer, key=lambda entry: entry["score"])["label"]


job = Job(
    name="rate-reviews",
    source=CsvSource("data/reviews.csv", id="review_id"),
    request={"inputs": "{title}. {body}", "parameters": {"top_k": 5}},
    parse=best_label,
    endpoint=HttpEndpoint(os.environ.get("REVIEWS_URL", "http://localhost:8080/"), token_env="REVIEWS_TOKEN"),
    sink=CsvSink("out/ratings.csv", keep=["title"]),
    policy=Policy(concurrency=16, max_attempts=5, timeout=60),
)
