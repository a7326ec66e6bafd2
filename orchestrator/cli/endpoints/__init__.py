"""orchestrator endpoints: one file per command."""

from __future__ import annotations

import typer

from orchestrator.cli.endpoints.check import check
from orchestrator.cli.endpoints.create import create
from orchestrator.cli.endpoints.delete import delete
from orchestrator.cli.endpoints.hardware import hardware
from orchestrator.cli.endpoints.list import list_
from orchestrator.cli.endpoints.logs import logs
from orchestrator.cli.endpoints.metrics import metrics
from orchestrator.cli.endpoints.pause import pause
from orchestrator.cli.endpoints.resume import resume
from orchestrator.cli.endpoints.scale_to_zero import scale_to_zero
from orchestrator.cli.endpoints.show import show
from orchestrator.cli.endpoints.update import update
from orchestrator.cli.endpoints.wait import wait

endpoints = typer.Typer(
    name="endpoints", help="Look at endpoints, and wake, pause or change them by hand.", no_args_is_help=True
)
endpoints.command("list")(list_)
for _command in (hardware, show, check, create, update, resume, wait, pause, scale_to_zero, delete, logs, metrics):
    endpoints.command()(_command)
