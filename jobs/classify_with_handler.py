"""Diary entries -> emotions, with a handler.py as Hugging Face has them, and a package that only it needs.

First `python jobs/handlers/holidays/prepare.py`: it makes the diary, and the model with the handler beside it. The
handler's requirements.txt is installed into an environment of its own, the first time that it is woken.
"""

from orchestrator import Job
from orchestrator.endpoints import LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

job = Job(
    name="classify-with-handler",
    source=JsonlSource("data/diary.jsonl", id="id"),
    request={"inputs": "{text}", "date": "{date}"},
    endpoint=LocalEndpoint(model="data/emotions", install_requirements=True),
    sink=JsonlSink("out/emotions.jsonl", keep=["date", "text"]),
)
