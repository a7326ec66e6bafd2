"""Photos -> what is on them: an image classifier behind a handler.py, its weights out of a package.

First `python jobs/handlers/imagenet/prepare.py`: it installs what the handler needs, and makes the photos. A file that
is no image is discarded with its reason, and all others have their answers.
"""

from pathlib import Path

from orchestrator import Job
from orchestrator.endpoints import LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import FilesSource

HANDLER = Path(__file__).parent / "handlers" / "imagenet"

job = Job(
    name="label-photos",
    source=FilesSource("data/photos/*", id="name"),
    request="{file}",
    endpoint=LocalEndpoint(model=str(HANDLER)),
    sink=JsonlSink("out/photos.jsonl"),
)
