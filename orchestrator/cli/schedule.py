"""orchestrator schedule: show and change when the daemon runs jobs."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from anyio import to_thread
from rich.table import Table

from orchestrator.cli.command import Missing, print_json, reported, with_store
from orchestrator.cli.global_options import Globals
from orchestrator.cli.options import AsJson, JobFile, Overrides, priority_of
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.domain.command_line import typed
from orchestrator.domain.schedule import CatchUp, Cron, Overlap, remark, slots_after
from orchestrator.engine.daemon import scheduling
from orchestrator.engine.run.run_request import request_from
from orchestrator.report.listings import last_words, next_words, schedule_json, slot_json, slot_words, timetable_json

if TYPE_CHECKING:
    from orchestrator.domain.timetable import Schedule
    from orchestrator.store import Store

schedule = typer.Typer(
    name="schedule",
    help="Show and change when `orchestrator serve` runs jobs.",
    no_args_is_help=True,
    add_completion=False,
)
ThisJob = Annotated[str, typer.Argument(help="The name of a job that has a schedule.", metavar="NAME")]
Expression = Annotated[
    str, typer.Option("--cron", help="Minute, hour, day of month, month, day of week; or @daily.", metavar="EXPR")
]
OVERLAP = typer.Option(
    help=f"What to do at a slot while an earlier run is unfinished: {', '.join(get_args(Overlap))}.", metavar="RULE"
)
CATCH_UP = typer.Option(
    help=f"Which missed slots to run after downtime: {', '.join(get_args(CatchUp))}.", metavar="RULE"
)


@schedule.command("list")
def list_(context: typer.Context, json: AsJson = False) -> None:
    """List schedules: when each fires next, the result of its last slot, and how many it missed."""
    now = time.time()
    timetable = with_store(context, scheduling.timetable_of, json=json)
    found, served = timetable.schedules, timetable.served
    if json:
        print_json(timetable_json(timetable))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("job", "cron", "next", "last", "missed", "job file"):
        table.add_column(column, justify="right" if column == "missed" else "left", overflow="fold")
    for one, last in found:
        table.add_row(
            one.job, f"{one.expression} {one.tz}", next_words(one, now), last_words(last), str(one.missed), one.jobfile
        )
    Terminal().print(table if found else "there is no schedule")
    for file in timetable.broken:
        STDERR.print(f"{file.path} is broken: {file.error}", style="red")
    if found and not served:
        STDERR.print("no daemon is running, so nothing fires: start one with `orchestrator serve`")


@schedule.command()
def add(
    context: typer.Context,
    jobfile: JobFile,
    cron: Expression,
    tz: Annotated[str, typer.Option(help="The time zone of the expression, for example Europe/Paris.")] = "UTC",
    overlap: Annotated[Overlap, OVERLAP] = "skip",
    catch_up: Annotated[CatchUp, CATCH_UP] = "latest",
    catch_up_window: Annotated[str, typer.Option(help="Run no missed slot that is older than this: 90m, 2d.")] = "1h",
    jitter: Annotated[
        str, typer.Option(help="Delay each slot by up to this time, the same for a slot every time: 10m.")
    ] = "0s",
    priority: Annotated[
        int,
        typer.Option(help="Priority of the runs; those with a higher one go first.", metavar="N", parser=priority_of),
    ] = 0,
    overrides: Overrides = None,
    json: AsJson = False,
) -> None:
    """Set or change the schedule of a job whose file has no schedule= of its own."""
    with reported(json=json):
        request = request_from(jobfile, overrides=overrides or ())
    job = request.job
    if job.schedule is not None:
        raise typer.BadParameter(f"{jobfile} has a schedule= of its own; change it there", param_hint="JOBFILE")
    try:
        meant = Cron(cron, tz, overlap, catch_up, catch_up_window, jitter)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    act = partial(scheduling.add, request, meant, priority)
    kept, served = with_store(context, act, json=json, missing=Missing.CREATE)
    if json:
        print_json(schedule_json(kept, None) | {"served": served})
        return
    say(f"job {job.name} is run at {cron!r} {tz}; next: {next_words(kept, time.time())}")
    if not served:
        STDERR.print("no daemon is running, so nothing fires: start one with `orchestrator serve`")


@schedule.command()
def pause(context: typer.Context, name: ThisJob) -> None:
    """Pause a schedule: its slots pass, and are not counted as missed."""
    with_store(context, lambda store: store.schedules.pause(name))
    say(f"the schedule of {name} is paused; `{typed('schedule', 'resume', name)}` lets it go on")


@schedule.command()
def resume(context: typer.Context, name: ThisJob) -> None:
    """Resume a paused schedule from now on."""
    resumed = with_store(context, lambda store: store.schedules.resume(name, time.time()))
    say(f"the schedule of {name} goes on; next: {next_words(resumed, time.time())}")


@schedule.command()
def fire(context: typer.Context, name: ThisJob, json: AsJson = False) -> None:
    """Queue a run now, in addition to the slots of the schedule."""
    run_id, served = with_store(context, partial(scheduling.fire, name), json=json)
    if json:
        print_json({"run": run_id, "job": name, "served": served})
        return
    say(f"run {run_id} of {name} is queued")
    if not served:
        STDERR.print("no daemon is running: start one with `orchestrator serve`", style="yellow")


@schedule.command("next")
def next_(
    context: typer.Context,
    name: ThisJob,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many slots to show.")] = 10,
    json: AsJson = False,
) -> None:
    """Show when a schedule fires next, noting clock changes."""
    found = with_store(context, partial(scheduling.find, name), json=json)
    cron = _cron(found)
    slots = [] if found.next_slot is None else [found.next_slot, *islice(slots_after(cron, found.next_slot), count - 1)]
    if json:
        print_json({"job": name, "tz": cron.tz, "next": [slot_json(cron, slot) for slot in slots]})
        return
    for slot in slots:
        note = remark(cron, slot)
        say(f"{slot_words(cron, slot)}{f'  {note}' if note else ''}")
    if found.paused:
        STDERR.print(f"it is paused; `{typed('schedule', 'resume', name)}` lets it go on", style="yellow")


@schedule.command()
def remove(context: typer.Context, name: ThisJob) -> None:
    """Remove a schedule that `add` made, or one whose job file is no longer watched."""
    options: Globals = context.obj

    async def act(store: Store) -> None:
        await scheduling.remove(name, (await to_thread.run_sync(options.settings)).serve.jobs, store)

    with_store(context, act)
    say(f"job {name} no longer has a schedule")


def _cron(found: Schedule) -> Cron:
    try:
        return found.meant(time.time())
    except ValueError as error:
        raise typer.BadParameter(f"its schedule is not valid: {error}", param_hint="NAME") from error
