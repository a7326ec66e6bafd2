"""orchestrator handler: one file per command."""

from __future__ import annotations

import typer

from orchestrator.cli.handler.check import check
from orchestrator.cli.handler.new import new
from orchestrator.cli.handler.serve import serve

handler = typer.Typer(
    name="handler",
    help="Create, check and serve a handler.py in the format of Hugging Face.",
    no_args_is_help=True,
    add_completion=False,
)
for _verb in (new, check, serve):
    handler.command()(_verb)
