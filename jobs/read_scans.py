"""Scanned pages -> the lines on them, each with its place: OCR behind a handler.py that needs no torch.

First `python jobs/handlers/ocr/prepare.py`, which prints the pages. The handler's requirements.txt is installed into an
environment of its own, the first time that it is woken.
"""

from pathlib import Path

from orchestrator import Job
from orchestrator.endpoints import LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import FilesSource

HANDLER = Path(__file__).parent / "handlers" / "ocr"

job = Job(
    name="read-scans",
    source=FilesSource("data/scans/*", id="name"),
    request="{file}",
    endpoint=LocalEndpoint(model=str(HANDLER), install_requirements=True),
    sink=JsonlSink("out/scans.jsonl"),
)
