"""orchestrator handler new: create a working handler to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from anyio import to_thread

from orchestrator.cli.command import without_store
from orchestrator.cli.handler.options import Folder
from orchestrator.cli.terminal import say
from orchestrator.domain.command_line import typed
from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_HANDLER = '''\
"""Serves this folder: the same file runs in `LocalEndpoint(model=DIR)` and on Hugging Face's Inference Endpoints."""

from typing import Any


class EndpointHandler:
    # If set, a run on this machine sends lists: data["inputs"] has up to this many inputs, and the answer is a list.
    # max_batch_size = 32

    def __init__(self, path: str = "") -> None:
        """Called once. `path` is this folder: load here what is beside this file, for example

        self.pipeline = transformers.pipeline("text-classification", model=path)
        """
        self.path = path

    def __call__(self, data: dict[str, Any]) -> Any:
        """Called for each request: `data` has `inputs`, `parameters` if there are any, and all other fields sent.

        The return value becomes JSON. Raise ValueError for an invalid input.
        """
        text = data["inputs"]
        if not isinstance(text, str):
            raise ValueError(f"inputs must be a text, not {type(text).__name__}")
        return {"words": len(text.split())}
'''
_REQUIREMENTS = "# Packages that handler.py imports and the toolkit's image lacks; one per line, with its version.\n"
_README = """\
# A handler

    orchestrator handler check . --payload '{"inputs": "three little words"}'
    orchestrator handler serve . --port 8080
    curl -H 'Content-Type: application/json' -d '{"inputs": "three little words"}' http://127.0.0.1:8080/

In a job: `endpoint=LocalEndpoint(model="path/to/this/folder")`, with `install_requirements=True` once requirements.txt
names something.
"""
_FILES = {"handler.py": _HANDLER, "requirements.txt": _REQUIREMENTS, "README.md": _README}


def new(context: typer.Context, folder: Folder) -> None:
    """Create a working handler.py, a requirements.txt and a README.md. Overwrites nothing."""

    async def act() -> None:
        await to_thread.run_sync(_write, folder)

    without_store(context, act)
    check = typed("handler", "check", folder, payload='"some words"')
    say(f"{folder}: {', '.join(_FILES)}; next: {check}")


def _write(folder: Path) -> None:
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder} already has {', '.join(there)}, which would be overwritten: choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _FILES.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
