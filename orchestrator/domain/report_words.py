"""The wording of the report, shared by text, HTML and hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.ask_totals import ask_lines
from orchestrator.domain.command_line import typed
from orchestrator.domain.comparison import Verdict
from orchestrator.domain.phrases import count, duration, money, rate
from orchestrator.domain.report_data import FOUND_ASLEEP
from orchestrator.domain.run import RunState
from orchestrator.domain.terms import cost_of
from orchestrator.domain.traffic import traffic_lines
from orchestrator.domain.wall_clock import dated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, tzinfo

    from orchestrator.domain.comparison import Difference
    from orchestrator.domain.report import Failure, Report, RunReport, Totals
    from orchestrator.domain.report_data import AwakeWindow, Lapse, QueuedRun, User
    from orchestrator.domain.terms import Spent

_FIGURES: Mapping[str, Callable[[float], str]] = {
    "items/s": rate,
    "cost per 1,000": money,
    "failures": lambda part: f"{part:.2%}",
}


OWES_NEWS = "its hooks have not been notified, since its process died before"


def clock(at: float, zone: tzinfo | None) -> str:
    """Return for example `2026-11-20 02:00:11`, in the zone; None is the zone of this machine."""
    return f"{_shown(at, zone):%Y-%m-%d %H:%M:%S}"


def short_clock(at: float, zone: tzinfo | None) -> str:
    """Return for example `Nov 20 02:00`."""
    shown = _shown(at, zone)
    return f"{shown:%b} {shown.day} {shown:%H:%M}"


def zone_name(at: float, zone: tzinfo | None) -> str:
    """Return the abbreviation of the zone at that moment."""
    return f"{_shown(at, zone):%Z}"


def _shown(at: float, zone: tzinfo | None) -> datetime:
    return dated(at, zone)


def title(report: Report, zone: tzinfo | None) -> str:
    """Return the title of the report: its run, or its period."""
    data = report.data
    if data.one_run:
        (run,) = report.runs
        return f"Run {run.ran.id} of {run.ran.job}: {run.state}"
    since, until = _shown(data.since, zone), _shown(data.until, zone)
    day = "" if since.date() == until.date() else f"{until:%b} {until.day}, "
    return f"{since:%b} {since.day}, {since:%H:%M} to {day}{until:%H:%M}"


def verdict_line(report: Report) -> str:
    """Return the period in one sentence."""
    if not report.runs:
        return f"Nothing was run{_cost(report.totals)}."
    totals, runs = report.totals, len(report.runs)
    finished = f"{totals.finished} of {count(runs, 'run')} finished"
    if totals.in_trouble:
        finished += f", {totals.in_trouble} to look at"
    settled = f"{totals.asked.completed:,} items completed, {totals.asked.discarded:,} discarded"
    return f"{finished}; {settled}{_cost(totals)}."


def _cost(totals: Totals) -> str:
    return "" if not totals.awake else f", {money(totals.dollars)} for {duration(totals.awake)} awake"


def debt_line(window: AwakeWindow, now: float, zone: tzinfo | None) -> str:
    """Describe an endpoint that no process will pause."""
    seconds = now - window.billed_from
    cost = "" if window.price_per_hour is None else f", {money(cost_of(seconds, window.price_per_hour))} so far"
    since = f"woken {clock(window.billed_from, zone)}, {duration(seconds)} ago{cost}"
    why = "it is no longer in use, and has not been seen asleep since"
    return f"{window.endpoint} may still be awake: {since}; {why}"


def awake_line(window: AwakeWindow, now: float, zone: tzinfo | None) -> str:
    """Describe an endpoint that is in use, or that is awake and not ours to pause."""
    awake = f"{clock(window.billed_from, zone)} ({duration(now - window.billed_from)})"
    since = f"{window.endpoint} has been awake since {awake}"
    if not window.users:
        return f"{since}: it was already awake before the run, so it is not ours to pause"
    users = [
        f"run {user.run} of {user.job} (process {user.pid})" if user.run else f"process {user.pid}, which pauses it"
        for user in window.users
        if user.kept_by is None
    ]
    used = f", used by {', '.join(users)}" if users else ""
    return since + used + "".join(_kept_awake(window, user, now, zone) for user in window.users if user.kept_by)


def _kept_awake(window: AwakeWindow, user: User, now: float, zone: tzinfo | None) -> str:
    price = window.price_per_hour
    cost = "" if price is None else f", {money(cost_of(now - window.billed_from, price))} so far"
    end = f"until `{typed('endpoints', 'pause', window.endpoint)}`"
    if user.expires_at is not None:
        end = f"until {clock(user.expires_at, zone)}, when `orchestrator serve` or the next sweep or run pauses it"
    return f"{cost}; {user.kept_by} keeps it awake {end}"


def billed_words(seconds: float, dollars: float | None) -> str:
    """Return for example `the provider bills 12 min 3 s, $0.41`."""
    return f"the provider bills {duration(seconds)}" + ("" if dollars is None else f", {money(dollars)}")


def proof_line(window: AwakeWindow, zone: tzinfo | None) -> str:
    """Describe how an endpoint was left: the state that was read, when, and by which run or command."""
    at = clock(window.billed_to or window.looked_at, zone)
    if window.closed_by == FOUND_ASLEEP:
        return f"was found asleep at {at}: {window.said}"
    if window.owed and window.said is not None:
        billed = window.billed_seconds
        bill = "" if billed is None else f"; {billed_words(billed, window.billed_dollars)}"
        return f"read as {window.said} at {at} by {_by(window)}{bill}"
    if window.owed:
        return f"closed at {at} by {_by(window)}; its state then is not known"
    if window.said is not None:
        return f"was not ours to pause, and was left as it was found: {window.said} at {clock(window.looked_at, zone)}"
    return f"was not ours to pause; last used {at}"


def _by(window: AwakeWindow) -> str:
    if window.closed_by == "run" and window.last_run is not None:
        return f"run {window.last_run}"
    return str(window.closed_by or "nobody")


def spent_line(spent: Spent, lost: float = 0.0) -> str:
    """Return for example `cold start 3 min 2 s, work 37 min 0 s, idle 1.0 s, pausing 4.0 s`."""
    parts = {"cold start": spent.cold_start, "work": spent.work, "idle": spent.idle, "pausing": spent.pausing}
    parts |= {"unaccounted for": lost} if lost else {}
    return ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items())


def change_line(change: Difference) -> str:
    """Return for example `items/s 812 (was 640, 27% more: better)`."""
    shown = _FIGURES[change.what]
    figures = f"{change.what} {shown(change.now)} (was {shown(change.before)}"
    if change.verdict is Verdict.SAME:
        return f"{figures}: the same)"
    by = "" if change.by is None else f", {abs(change.by):.0%} {'more' if change.by > 0 else 'less'}"
    return f"{figures}{by}: {change.verdict})"


def why_line(run: RunReport, zone: tzinfo | None) -> str:
    """Return why a run is not finished, or the error with which it ended; "" if there is neither."""
    ran = run.ran
    if run.state == "queued":
        due = f"{'due' if ran.started_at is None else 'continues'} at {clock(ran.due_at or 0.0, zone)}"
        return f"{due}: {ran.why}" if ran.why else due
    if run.state == "running" and ran.why:
        return f"waiting: {ran.why}"
    if run.state == "abandoned":
        return "its process died or was killed"
    if ran.state is RunState.FINISHED:
        return ""
    return ran.error or ""


def waiting_line(one: QueuedRun, zone: tzinfo | None) -> str:
    """Describe a run in the queue."""
    line = f"run {one.run} of {one.job}, due {clock(one.due_at, zone)}"
    if one.waits_for:
        line += f", waits for run {', '.join(map(str, one.waits_for))}"
    if one.deadline is not None:
        line += f", needed by {clock(one.deadline, zone)}"
    return f"{line}: {one.why}" if one.why else line


def lapse_line(lapse: Lapse, zone: tzinfo | None) -> str:
    """Describe slots of a schedule without a run."""
    when = clock(lapse.first, zone)
    if lapse.slots > 1:
        when += f" to {clock(lapse.last, zone)}"
    return f"{lapse.job}: {count(lapse.slots, 'slot')} {lapse.outcome} ({when})"


def items_line(run: RunReport) -> str:
    """Return the counts of a run's items."""
    ran, asked = run.ran, run.asked
    line = f"{count(ran.total, 'item')}: {ran.completed:,} completed, {ran.discarded:,} discarded"
    line += f", {run.left:,} to do" if run.left else ""
    reused = ran.completed + ran.discarded - asked.settled
    if ran.readings and reused > 0:
        line += f"; {reused:,} of them from earlier runs"
    return line


def pace_line(run: RunReport) -> str:
    """Return the run's speed; "" if nothing was asked."""
    asked = run.asked
    if asked.rate is None:
        return ""
    pace = f"{rate(asked.rate)} items/s while asking (best {rate(asked.peak)}/s)"
    return pace if asked.token_rate is None else f"{pace}, {rate(asked.token_rate)} tokens/s"


def cost_line(run: RunReport) -> str:
    """Return the run's cost; "" if it used no endpoint that costs anything that we know of."""
    if run.cost is None:
        return ""
    each = run.figures.cost_per_1000
    thousand = "" if each is None else f", {money(each)} per 1,000 items"
    awake = f" for {duration(run.cost.seconds)} awake" if run.cost.seconds else ""
    handed_over = "" if run.ran.handed_over is None else f"; {run.ran.handed_over}"
    return f"cost {money(run.cost.dollars)}{awake}{thousand}{handed_over}"


def failure_line(failure: Failure) -> str:
    """Return how many items failed for one cause, with its message."""
    cause = failure.cause
    status = f" {cause.status}" if cause.status else ""
    return f"{count(cause.items, 'item')} {cause.kind}{status}: {' '.join(cause.message.split())}"


def summary(report: Report, zone: tzinfo | None) -> str:
    """Return a report on one run in a few lines of plain text, for a message to the user."""
    (run,) = report.runs
    words = (why_line(run, zone), items_line(run), pace_line(run), *traffic_lines(run.ran.traffic), cost_line(run))
    lines = [one for one in words if one]
    lines += ask_lines(run.asks)
    lines += [f"{failure_line(one)}; next: {one.next}" for one in run.failures]
    lines += [f"next: {run.next}"] if run.next else []
    lines += [f"!! {debt_line(debt, report.data.until, zone)}; next: orchestrator sweep" for debt in report.debts]
    lines += [f"{one.endpoint}: {proof_line(one, zone)}" for one in report.asleep]
    return "\n".join([title(report, zone), *lines])
