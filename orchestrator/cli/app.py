"""The `orchestrator` command: its global options, and all commands in their panels."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from orchestrator.cli.global_options import Globals
from orchestrator.cli.on_call import add_on_call
from orchestrator.cli.terminal import LogHandler, Terminal, say
from orchestrator.descriptors import raise_limit
from orchestrator.domain.exit_code import EXIT_CODES
from orchestrator.domain.phrases import EVENTS
from orchestrator.version import __version__

if TYPE_CHECKING:
    from typer._click.core import Context


class Commands(TyperGroup):
    """All commands. One that cannot show what it has read from a damaged ledger says so in one line."""

    def invoke(self, ctx: Context) -> object:
        """Parse the global options, and execute the command."""
        try:
            return super().invoke(ctx)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            from orchestrator.cli.command import fail_if_expected

            if isinstance(ctx.obj, Globals):
                fail_if_expected(error, ctx.obj)
            raise


app = typer.Typer(
    name="orchestrator",
    cls=Commands,
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
        from orchestrator.store.sqlite import describe

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


# Commands grouped by purpose, in the order in which help shows them, each with the first paragraph of its help.
_PANELS = {
    "Run a job": {
        "plan.plan": "Show what a run would do now: items that are new, edited, reused or to retry, and the cost. "
        "Calls no endpoint.",
        "run.run": "Run a job to completion and deliver the results. After any interruption, run it again to continue.",
        "retry.retry": "Ask a run's discarded items again. They run, and are delivered, in the job's latest run "
        "without --limit.",
        "export.export": "Write a run's current results to a file, even while it runs.",
        "requests.requests": "Write what a run would ask as a file for a batch service. Calls no endpoint.",
        "controls.hold": "Hold a run: it finishes the requests in flight, pauses its endpoint and waits for `go`.",
        "controls.go": "Let a held run continue.",
        "controls.tune": "Change how many requests a run has in flight, even while it runs.",
        "cancel.cancel": "Stop a run and mark it cancelled. Completed items are kept, and the job's next run reuses "
        "them.",
    },
    "Look": {
        "status.status": "Show a run's counts, rate, time left, tokens, traffic, workers on this machine, and failures "
        "by cause.",
        "logs.logs": "Print a run's log: what happened and when, and what the run is waiting for.",
        "runs.runs": "List the latest runs.",
        "items.items": "List a run's items in input order.",
        "items.item": "Show one item with every attempt, its request, its answer, and its asks.",
        "report.report": "Report on a period or a run: what finished, what failed and why, what it cost, how endpoints "
        "were left.",
        "costs.costs": "Show what endpoints cost: seconds awake according to this ledger's receipts, times the price "
        "per hour.",
        "ui.ui": "Show runs, costs and endpoints on a page in the browser until Ctrl-C. Executes nothing: that is "
        "`serve`.",
        "doctor.doctor": "Check the ledger, this machine and the endpoints, and show each problem with its remedy. "
        "Changes nothing.",
    },
    "Queue": {
        "submit.submit": "Queue a run of a job; a daemon (`orchestrator serve`) executes it.",
        "queue.queue": "List the queue: the runs being executed, then those that wait, in the order in which they will "
        "be taken.",
        "queue.prioritize": "Change the priority of a queued run.",
        "serve.serve": "Execute queued runs, fire schedules and pay debts until SIGTERM or Ctrl-C. A second one aborts "
        "at once.",
        "schedule.schedule": "Show and change when `orchestrator serve` runs jobs.",
    },
    "Endpoints": {
        "sweep.sweep": "Pause endpoints that dead processes left awake. Run it from cron and at boot.",
        "endpoints.endpoints": "Look at endpoints, and wake, pause or change them by hand.",
        "handler.handler": "Create, check and serve a handler.py in the format of Hugging Face.",
    },
    "Keep the ledger": {
        "backup.backup": "Copy the ledger as it is now, even while it is in use. The copy is checked before it "
        "appears.",
        "prune.prune": "Delete runs that ended long ago, with the answers that no other run needs, and free their "
        "space.",
        "compact.compact": "Rewrite the ledger without the space left by deleted rows. Refuses while the ledger is in "
        "use.",
    },
}
_HIDDEN = {
    "execute.execute": "Execute a run that a daemon has claimed, and stop if the daemon dies.",
    "describe.describe": "Print what a job file declares, or why it cannot be loaded, as one line of JSON.",
    "notify.notify": "Notify the hooks of a run's job how it ended, or those of the settings if the job is not known.",
}
for _panel, _commands in _PANELS.items():
    add_on_call(app, "orchestrator.cli", _commands, panel=_panel)
add_on_call(app, "orchestrator.cli", _HIDDEN, hidden=True)
