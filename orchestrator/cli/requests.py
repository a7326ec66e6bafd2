"""orchestrator requests: write what a run would ask as a batch file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.command import Missing, print_json, reported, with_app
from orchestrator.cli.options import AsJson, JobFile, Limit, Overrides, Overwrite
from orchestrator.cli.terminal import say
from orchestrator.domain.batch_dialects import Dialect
from orchestrator.domain.phrases import count
from orchestrator.engine.run.run_request import request_from

_SHOWN = 10  # rows that are left out


def requests(
    context: typer.Context,
    jobfile: JobFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.", metavar="FILE")],
    dialect: Annotated[
        Dialect,
        typer.Option(help="The format of its lines: openai, together, mistral or anthropic.", metavar="NAME"),
    ] = "openai",
    limit: Limit = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write what a run would ask as a file for a batch service. Calls no endpoint."""
    with reported(json=json):
        request = request_from(jobfile, limit=limit, overrides=overrides or ())
    written = with_app(
        context,
        lambda app: app.write_requests(request, output, dialect, overwrite=overwrite),
        json=json,
        missing=Missing.LEND,
    )
    if json:
        print_json(asdict(written))
        return
    say(f"{output}: {count(written.requests, 'request')}")
    for line in written.left_out[:_SHOWN]:
        say(f"left out: {line}")
    if (more := len(written.left_out) - _SHOWN) > 0:
        say(f"left out: {count(more, 'more row')}")
