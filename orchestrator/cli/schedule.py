"""orchestrator schedule: show and change when the daemon runs jobs."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from anyio import to_thread
from rich.table import Table

from orchestrator.cli.command import Globals, Missing, print_json, reported, with_store
from orchestrator.cli.queue import moment, priority_of
from orchestrator.cli.run import AsJson, JobFile, Overrides
from orchestrator.cli.terminal import STDERR, Terminal, say, say_message
from orchestrator.domain.command_line import typed
from orchestrator.domain.errors import UsageError
from orchestrator.domain.schedule import CatchUp, Cron, Overlap, in_zone, remark, slots_after
from orchestrator.domain.timetable import Declared, Schedule
from orchestrator.engine.run.run_request import request_from

if TYPE_CHECKING:
    from orchestrator.domain.timetable import BrokenFile, Fired
    from orchestrator.store import Store

schedule = typer.Typer(
    name="schedule",
    help="Show and change when `orchestrator serve` runs jobs.",
    no_args_is_help=True,
)
_LATE = 120.0  # seconds after a slot within which a running daemon has decided about it
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
    found, broken, served = with_store(context, _listed, json=json)
    if json:
        rows = [_as_json(one, last) for one, last in found]
        print_json({"served": served, "schedules": rows, "broken": [asdict(file) for file in broken]})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("job", "cron", "next", "last", "missed", "job file"):
        table.add_column(column, justify="right" if column == "missed" else "left", overflow="fold")
    for one, last in found:
        table.add_row(one.job, f"{one.expression} {one.tz}", _next(one, now), _last(last), str(one.missed), one.jobfile)
    Terminal().print(table if found else "there is no schedule")
    for file in broken:
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
    endpoints, deadline = sorted(job.endpoint_names), job.policy.deadline
    declared = Declared(job.name, request.kept(), endpoints, meant, priority, deadline, job.waits_for)
    kept, served = with_store(context, partial(_add, declared), json=json, missing=Missing.CREATE)
    if json:
        print_json(_as_json(kept, None) | {"served": served})
        return
    say(f"job {job.name} is run at {cron!r} {tz}; next: {_next(kept, time.time())}")
    if not served:
        STDERR.print("no daemon is running, so nothing fires: start one with `orchestrator serve`")


@schedule.command()
def pause(context: typer.Context, name: ThisJob) -> None:
    """Pause a schedule: its slots pass, and are not counted as missed."""
    with_store(context, lambda store: store.schedules.pause(name))
    say_message(f"the schedule of {name} is paused; `{typed('schedule', 'resume', name)}` lets it go on")


@schedule.command()
def resume(context: typer.Context, name: ThisJob) -> None:
    """Resume a paused schedule from now on."""
    resumed = with_store(context, lambda store: store.schedules.resume(name, time.time()))
    say(f"the schedule of {name} goes on; next: {_next(resumed, time.time())}")


@schedule.command()
def fire(context: typer.Context, name: ThisJob, json: AsJson = False) -> None:
    """Queue a run now, in addition to the slots of the schedule."""
    run_id, served = with_store(context, partial(_fire, name), json=json)
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
    found = with_store(context, partial(_found, name), json=json)
    cron = _cron(found)
    slots = [] if found.next_slot is None else [found.next_slot, *islice(slots_after(cron, found.next_slot), count - 1)]
    if json:
        print_json({"job": name, "tz": cron.tz, "next": [_slot_as_json(cron, slot) for slot in slots]})
        return
    for slot in slots:
        note = remark(cron, slot)
        say(f"{_both(cron, slot)}{f'  {note}' if note else ''}")
    if found.paused:
        STDERR.print(f"it is paused; `{typed('schedule', 'resume', name)}` lets it go on", style="yellow")


@schedule.command()
def remove(context: typer.Context, name: ThisJob) -> None:
    """Remove a schedule that `add` made, or one whose job file is no longer watched."""
    with_store(context, partial(_remove, context.obj, name))
    say(f"job {name} no longer has a schedule")


# -- actions on the ledger --------------------------------------------------------------------------------------------


async def _listed(store: Store) -> tuple[list[tuple[Schedule, Fired | None]], list[BrokenFile], bool]:
    rows = []
    for one in await store.schedules.listed():
        last = await store.schedules.decided(one)
        rows.append((one, last[0] if last else None))
    return rows, await store.schedules.broken(), await store.queue.served()


async def _add(declared: Declared, store: Store) -> tuple[Schedule, bool]:
    standing = await store.schedules.find(declared.job)
    if standing is not None and not standing.gone and standing.source == "file":
        raise UsageError(f"job {declared.job!r} has its schedule from {standing.jobfile}; change it there")
    await store.schedules.put(declared, "command", time.time())
    await store.schedules.mended(declared.jobfile)
    return await _found(declared.job, store), await store.queue.served()


async def _fire(name: str, store: Store) -> tuple[int, bool]:
    return await store.schedules.fire_now(name, time.time()), await store.queue.served()


async def _found(name: str, store: Store) -> Schedule:
    found = await store.schedules.find(name)
    if found is None or found.gone:
        raise UsageError(f"there is no schedule of a job {name!r}; see `orchestrator schedule list`")
    return found


async def _remove(options: Globals, name: str, store: Store) -> None:
    found = await _found(name, store)
    file = Path(found.jobfile)
    watched = file.parent in (await to_thread.run_sync(options.settings)).serve.jobs
    if found.source == "file" and watched and await to_thread.run_sync(file.exists):
        raise UsageError(f"the schedule is in {file}: remove schedule= there, or `{typed('schedule', 'pause', name)}`")
    await store.schedules.mark_gone(name, found.jobfile)


# -- texts ------------------------------------------------------------------------------------------------------------


def _cron(found: Schedule) -> Cron:
    try:
        return found.meant(time.time())
    except ValueError as error:
        raise typer.BadParameter(f"its schedule is not valid: {error}", param_hint="NAME") from error


def _next(one: Schedule, now: float) -> str:
    if one.next_slot is None:
        return "never"
    try:
        shown = _both(one.meant(now), one.next_slot)
    except ValueError:
        shown = moment(one.next_slot)
    if one.paused:
        return f"paused (would be {shown})"
    if one.last_slot is not None and one.last_slot > now:
        return f"{shown}: the clock was set back, and all slots before that are already decided"
    if one.next_slot < now - _LATE:
        return f"{shown}: overdue: no daemon is running, or none that watches its folder"
    return shown


def _both(cron: Cron, slot: float) -> str:
    """Return a slot in the schedule's time zone, and in this machine's if that differs."""
    there, here = in_zone(cron, slot), datetime.fromtimestamp(slot).astimezone()
    shown = f"{there:%a %Y-%m-%d %H:%M %Z}"
    return shown if there.utcoffset() == here.utcoffset() else f"{shown} ({here:%a %H:%M} here)"


def _last(last: Fired | None) -> str:
    if last is None:
        return ""
    run = f" as run {last.run_id}" if last.run_id is not None else ""
    return f"{moment(last.slot)} {last.decision}{run}"


def _slot_as_json(cron: Cron, slot: float) -> dict[str, object]:
    utc = datetime.fromtimestamp(slot, UTC)
    return {"slot": slot, "utc": utc, "zone": in_zone(cron, slot), "note": remark(cron, slot) or None}


def _as_json(one: Schedule, last: Fired | None) -> dict[str, object]:
    left_out = {"id", "revision", "gone", "about"}
    shown = {name: value for name, value in asdict(one).items() if name not in left_out}
    return shown | {"last": None if last is None else asdict(last)}
