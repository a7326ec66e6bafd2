"""What is listed, as words and as JSON: runs, the status of one, items, the queue, schedules, costs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.domain.answer import by_name
from orchestrator.domain.item import ItemState
from orchestrator.domain.schedule import Cron, in_zone, remark
from orchestrator.domain.wall_clock import dated
from orchestrator.engine.status import state_word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.costs import By, Cost
    from orchestrator.domain.queue import Queued
    from orchestrator.domain.run import Counts, Run
    from orchestrator.domain.timetable import Fired, Schedule
    from orchestrator.engine.daemon.scheduling import Timetable
    from orchestrator.engine.daemon.submit import Submitted
    from orchestrator.engine.status import RunStatus
    from orchestrator.store.views import ItemView

_LATE = 120.0  # seconds after a slot within which a running daemon has decided about it


def run_json(run: Run, counts: Counts) -> dict[str, object]:
    """Return a run of a list, for JSON."""
    return {
        "run": run.id,
        "job": run.job,
        "state": state_word(run),
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "due_at": run.due_at,
        "counts": asdict(counts),
        **_speed(run, counts),
        "why": run.why,
        "error": run.error,
    }


def status_json(status: RunStatus) -> dict[str, object]:
    """Return the status of a run for JSON."""
    run, counts = status.run, status.counts
    return {
        "run": run.id,
        "job": run.job,
        "state": status.state,
        "counts": asdict(counts) | {"available": counts.unfinished - counts.leased},
        **_speed(run, counts),
        "cost_left": status.cost_left,
        **asdict(status.tokens),
        "traffic": asdict(status.traffic),
        "asks": [_ask_total(one) for one in status.asks],
        "noted": by_name(status.noted),
        "waiting": status.waits,
        "error": run.error,
        "failures": [asdict(cause) for cause in status.causes],
        "workers": [asdict(worker) for worker in status.workers],
    }


def _ask_total(total: AskTotal) -> dict[str, object]:
    return {name: value for name, value in asdict(total).items() if name not in {"step", "cost"}}


def _speed(run: Run, counts: Counts) -> dict[str, float | None]:
    """Return items per second and the time left, both None unless a process executes the run."""
    rate = run.rate if run.holder is not None else None
    return {"rate": rate, "seconds_left": counts.unfinished / rate if rate else None}


def submitted_json(found: Submitted, due_at: float) -> dict[str, object]:
    """Return a submission for JSON. `due_at`: as it was asked for."""
    run = found.run
    about = {"run": run.id, "job": run.job, "new": found.new, "state": queued_word(run)}
    return {**about, "due_at": due_at, "served": found.served}


def queued_word(run: Run) -> str:
    """Return the state of a run that was submitted."""
    return "queued" if run.due_at is not None and run.holder is None else state_word(run)


def item_json(view: ItemView) -> dict[str, object]:
    """Return an item for JSON."""
    error = None
    if view.state is not ItemState.COMPLETED and view.kind is not None:
        error = {"kind": view.kind, "status": view.status, "message": view.message}
    return {
        "id": view.id,
        "position": view.position,
        "state": view.state,
        "attempts": view.attempts,
        "output": None if view.output is None else exact_json.loads(view.output),
        "error": error,
        "notes": [word.partition(":")[0] for word in (view.notes or "").split()],
    }


def ask_title(ask: Mapping[str, Any]) -> str:
    """Return the title of an ask in a transcript: its number, what was asked, and how that ended."""
    step = f" ({ask['step']})" if ask["step"] else ""
    what = f" of {ask['endpoint']}{step}" if ask["endpoint"] else f", call of {ask['step'] or 'a function'}"
    took = "" if ask["seconds"] is None else f" after {ask['seconds']:.3f} s"
    tokens = [f"{ask[name]:,} tokens {way}" for name, way in (("tokens_in", "in"), ("tokens_out", "out")) if ask[name]]
    tries = [f"attempt {ask['attempts']}"] if ask["attempts"] > 1 else []
    ended = ", ".join([f"{ask['outcome'] or 'unanswered'}{took}", *tries, *tokens, *ask["notes"]])
    return f"{ask['number']}{what}: {ended}"


def note_on_asks(asks: Sequence[Mapping[str, Any]]) -> str:
    """Return a line about asks of several versions of a rollout, which are in one transcript; "" if none are seen."""
    if len({ask["number"] for ask in asks}) == len(asks):
        return ""
    return (
        "some asks have the same number, because the rollout or its row was edited, or it asked in another order: "
        "the last of them is the latest"
    )


def queue_json(found: Sequence[Queued], now: float, *, served: bool) -> dict[str, object]:
    """Return the queue for JSON. `served`: whether a daemon is running."""
    return {"served": served, "queue": [asdict(one) | {"stands": stands(one, now)} for one in found]}


def stands(one: Queued, now: float) -> str:
    """Return the state of a queued run, in words."""
    if one.executing:
        return "running" if one.state != "finished" else "delivering"
    why = f" ({one.why})" if one.why else ""
    if one.held:
        return f"held; `orchestrator go {one.id}` lets it go on"
    if one.waits_for:
        return f"waits for run {', '.join(map(str, one.waits_for))}{why}"
    if one.due_at > now:
        return f"due {moment(one.due_at)}{why}"
    needed = f", needed by {moment(one.deadline)}" if one.deadline is not None else ""
    return f"due now{needed}{why}"


def moment(at: float) -> str:
    """Return a moment in this machine's time zone."""
    return f"{dated(at, None):%Y-%m-%d %H:%M:%S}"


def next_words(one: Schedule, now: float) -> str:
    """Return when a schedule fires next, in words."""
    if one.next_slot is None:
        return "never"
    try:
        shown = slot_words(one.meant(now), one.next_slot)
    except ValueError:
        shown = moment(one.next_slot)
    if one.paused:
        return f"paused (would be {shown})"
    if one.last_slot is not None and one.last_slot > now:
        return f"{shown}: the clock was set back, and all slots before that are already decided"
    if one.next_slot < now - _LATE:
        return f"{shown}: overdue: no daemon is running, or none that watches its folder"
    return shown


def slot_words(cron: Cron, slot: float) -> str:
    """Return a slot in the schedule's time zone, and in this machine's if that differs."""
    there, here = in_zone(cron, slot), datetime.fromtimestamp(slot).astimezone()
    shown = f"{there:%a %Y-%m-%d %H:%M %Z}"
    return shown if there.utcoffset() == here.utcoffset() else f"{shown} ({here:%a %H:%M} here)"


def last_words(last: Fired | None) -> str:
    """Return what was decided about a schedule's last slot, in words."""
    if last is None:
        return ""
    run = f" as run {last.run_id}" if last.run_id is not None else ""
    return f"{moment(last.slot)} {last.decision}{run}"


def slot_json(cron: Cron, slot: float) -> dict[str, object]:
    """Return a slot for JSON."""
    utc = datetime.fromtimestamp(slot, UTC)
    return {"slot": slot, "utc": utc, "zone": in_zone(cron, slot), "note": remark(cron, slot) or None}


def schedule_json(one: Schedule, last: Fired | None) -> dict[str, object]:
    """Return a schedule and what was decided about its last slot, for JSON."""
    left_out = {"id", "revision", "gone", "about"}
    shown = {name: value for name, value in asdict(one).items() if name not in left_out}
    return shown | {"last": None if last is None else asdict(last)}


def timetable_json(timetable: Timetable) -> dict[str, object]:
    """Return all schedules for JSON, and the job files that could not be used."""
    return {
        "served": timetable.served,
        "schedules": [schedule_json(one, last) for one, last in timetable.schedules],
        "broken": [asdict(file) for file in timetable.broken],
    }


def costs_json(by: By, costs: Sequence[Cost]) -> dict[str, object]:
    """Return a bill for JSON."""
    return {"by": by, "costs": [asdict(cost) for cost in costs]}
