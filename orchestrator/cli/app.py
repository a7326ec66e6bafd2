"""The `orchestrator` command: its global options, and all commands in their panels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import (
    backup,
    cancel,
    compact,
    controls,
    costs,
    execute,
    export,
    items,
    logs,
    notify,
    plan,
    prune,
    queue,
    requests,
    retry,
    run,
    runs,
    serve,
    status,
    submit,
    sweep,
    ui,
)
from orchestrator.cli.command import Globals
from orchestrator.cli.describe import describe as describe_job
from orchestrator.cli.doctor import doctor
from orchestrator.cli.endpoints import endpoints
from orchestrator.cli.handler import handler
from orchestrator.cli.report import report
from orchestrator.cli.schedule import schedule
from orchestrator.cli.terminal import LogHandler, Terminal, say
from orchestrator.descriptors import raise_limit
from orchestrator.domain.exit_code import EXIT_CODES
from orchestrator.run_log import EVENTS
from orchestrator.store.sqlite import describe
from orchestrator.version import __version__

app = typer.Typer(
    name="orchestrator",
    help="Run a dataset through a model that costs money while it is awake: "
    "wake it, ask it everything, keep every answer, put it back to sleep.",
    epilog="Exit codes: " + " · ".join(f"{code.value} {meaning}" for code, meaning in EXIT_CODES.items()),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


_LEVELS = (logging.CRITICAL, logging.INFO, logging.DEBUG)  # of the event log, by the number of -v options


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"orchestrator {__version__} · {describe()}")
        raise typer.Exit


@app.callback()
def global_options(
    context: typer.Context,
    db: Annotated[
        str | None, typer.Option(envvar="ORCHESTRATOR_DB", help="The ledger: a path or sqlite:///PATH.", metavar="URL")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="ORCHESTRATOR_CONFIG", help="The settings file (see config.example.toml).")
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            help="Log events, and show the traceback of a failure; -vv: also log each failed attempt.",
        ),
    ] = 0,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    """Handle the options that every command takes."""
    if config is not None:  # job files that name an endpoint, and the guard, read the same settings
        config = config.absolute()
        os.environ["ORCHESTRATOR_CONFIG"] = str(config)
    Terminal.given = [*_if_typed(context, "db", db), *_if_typed(context, "config", config)]
    raise_limit()
    logging.basicConfig(handlers=[LogHandler()], level=logging.WARNING)
    logging.getLogger(EVENTS).setLevel(_LEVELS[min(verbose, 2)])
    context.obj = Globals(db=db, config=config, verbose=verbose)


def _if_typed(context: typer.Context, name: str, value: object) -> list[str]:
    """Return a global option with its value; nothing if it is not from the command line."""
    source = context.get_parameter_source(name)
    return [f"--{name}", str(value)] if source is not None and source.name == "COMMANDLINE" else []


# Commands grouped by purpose, in the order in which help shows them.
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run a job": (
        plan.plan,
        run.run,
        retry.retry,
        export.export,
        requests.requests,
        controls.hold,
        controls.go,
        controls.tune,
        cancel.cancel,
    ),
    "Look": (status.status, logs.logs, runs.runs, items.items, items.item, report, costs.costs, ui.ui, doctor),
    "Queue": (submit.submit, queue.queue, queue.prioritize, serve.serve),
    "Endpoints": (sweep.sweep,),
    "Keep the ledger": (backup.backup, prune.prune, compact.compact),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        negative = {"ignore_unknown_options": _command is queue.prioritize}  # there, -5 is a number and not an option
        app.command(rich_help_panel=_panel, context_settings=negative)(_command)
app.command(hidden=True)(execute.execute)
app.command(hidden=True)(describe_job)
app.command(hidden=True)(notify.notify)
app.add_typer(schedule, rich_help_panel="Queue")
app.add_typer(endpoints, rich_help_panel="Endpoints")
app.add_typer(handler, rich_help_panel="Endpoints")
