"""Reviews -> stars, by a Gradio app in a Hugging Face Space that is paused while nobody uses it.

The token comes from HF_TOKEN or `hf auth login`, and has to belong to the Space's owner. The Space is restarted, asked,
and paused again; if everything dies, it goes to sleep after ten minutes. Here, with reviews that are made for it, and a
Space that costs nothing: `python jobs/demo/stand_in.py orchestrator run jobs/stars_from_space.py`.
"""

from orchestrator import Job, Policy
from orchestrator.endpoints import HuggingFaceSpaceEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import CsvSource
from orchestrator.wires import GradioWire

job = Job(
    name="stars-from-space",
    source=CsvSource("data/reviews.csv", id="review_id"),
    request="{title}\n\n{body}",
    endpoint=HuggingFaceSpaceEndpoint("acme/stars", wire=GradioWire("/predict"), sleep_time="10m"),
    sink=JsonlSink("out/stars_from_space.jsonl", keep=["title"]),
    policy=Policy(max_cost=1.00),
)
