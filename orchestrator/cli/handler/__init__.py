"""orchestrator handler: one verb, one file."""

from __future__ import annotations

import typer

from orchestrator.cli.handler.check import check
from orchestrator.cli.handler.new import new
from orchestrator.cli.handler.serve import serve

handler = typer.Typer(
    name="handler", help="Write, check and serve a handler.py as Hugging Face has them.", no_args_is_help=True
)
for _verb in (new, check, serve):
    handler.command()(_verb)
