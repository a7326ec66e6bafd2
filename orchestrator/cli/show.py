"""What the user sees of a run: progress while it runs, and a report at its end. All on stderr."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from orchestrator.cli.terminal import STDERR
from orchestrator.cli.vitals import brief, follow
from orchestrator.domain.answer import noted_words
from orchestrator.domain.events import Phase
from orchestrator.domain.phrases import count, duration, money, visible
from orchestrator.domain.phrases import rate as per_second
from orchestrator.domain.terms import cost_of
from orchestrator.domain.traffic import traffic_lines
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.run import Cause, Counts, Tokens
    from orchestrator.domain.worker import Vitals
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.engine.run.session import SessionCost

_EVERY_LOOK = 0.25  # seconds between two looks at the progress
_EVERY_LINE = 15.0  # seconds between two lines in a log file, if nothing special happens
_EVERY_WORD = 2.0  # the same, if the status text of an endpoint that we wait for has changed


@asynccontextmanager
async def shown(progress: Progress, *, quiet: bool) -> AsyncIterator[None]:
    """Show progress until the block ends: a bar on a terminal, otherwise a line now and then."""
    if quiet:
        yield
        return
    workers: list[Vitals] = []
    async with task_group() as group:
        group.start_soon(follow, workers)
        group.start_soon(_show_bar if STDERR.is_terminal else _show_lines, progress, workers)
        yield
        group.cancel_scope.cancel()


async def _show_bar(progress: Progress, workers: Sequence[Vitals]) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Bar(*columns, console=STDERR, transient=True) as bar:
        task = bar.add_task("", total=None, speed="", note="")
        while True:
            reading = progress.phase is Phase.INGEST
            bar.update(
                task,
                description=progress.phase,
                completed=progress.plan.total if reading else progress.settled,
                total=None if reading else progress.total,
                speed="" if progress.waiting else speed(progress.rate(), progress.total - progress.settled),
                note=visible(news(progress, workers)),
            )
            await anyio.sleep(_EVERY_LOOK)


async def _show_lines(progress: Progress, workers: Sequence[Vitals]) -> None:
    notes, status_texts, last = (progress.note, [str(one) for one in progress.waits]), list[str](), time.monotonic()
    while True:
        await anyio.sleep(_EVERY_LOOK)
        new_notes, new_texts = (progress.note, [str(one) for one in progress.waits]), _texts_while_waking(progress)
        interval = 0.0 if new_notes != notes else _EVERY_WORD if new_texts != status_texts else _EVERY_LINE
        if time.monotonic() < last + interval:
            continue
        notes, status_texts, last = new_notes, new_texts, time.monotonic()
        done = f"{progress.settled:,}/{progress.total:,}" if progress.total else f"{progress.plan.total:,} rows"
        rate = "" if progress.waiting else speed(progress.rate(), progress.total - progress.settled)
        parts = [f"{progress.phase}: {done} {rate}".rstrip(), news(progress, workers)]
        STDERR.print(" · ".join(filter(None, parts)))


def _texts_while_waking(progress: Progress) -> list[str]:
    return [presence.said for presence in progress.servers if presence.phase is Phase.WAKE]


def news(progress: Progress, workers: Sequence[Vitals] = ()) -> str:
    """Return one line on the endpoints: their status texts while the run waits for them, their cost so far, notes.

    While the run is working, the line also has the load of the workers on this machine.
    """
    parts = []
    several = len(progress.servers) > 1
    for presence in progress.servers:
        said = [presence.said] if presence.phase is not Phase.WORK and presence.said else []
        if presence.awake_since is not None and presence.price_per_hour is not None:
            seconds = time.monotonic() - presence.awake_since
            said.append(f"awake {duration(seconds)}, {money(cost_of(seconds, presence.price_per_hour))}")
        said += [presence.note] if presence.note else []
        said += [f"{presence.waiting}"] if presence.waiting is not None else []
        parts += [f"{presence.name}: {said[0]}", *said[1:]] if several and said else said
    if workers and progress.phase is Phase.WORK:
        parts.append(brief(workers))
    if progress.waiting is not None:
        parts.append(str(progress.waiting))
    if progress.note:
        parts.append(progress.note)
    return " · ".join(parts)


def speed(rate: float | None, left: int) -> str:
    """Return for example `812.0/s, 1 min 3 s left`, or "" if the rate is not known."""
    if not rate:
        return ""
    return f"{rate:,.1f}/s, {duration(left / rate)} left"


def report_lines(report: RunResult) -> None:
    """Print the closing report: what was asked, the results, the cost, and how the endpoint was left."""
    counts, run = report.counts, report.run
    done = f"{report.settled:,} settled now with {count(report.asked, 'request')} in {duration(report.seconds)}"
    done += f", {report.shared:,} of them by the answer to the same request" if report.shared else ""
    rate = f" ({per_second(report.settled / report.asking)}/s while asking)" if report.settled and report.asking else ""
    STDERR.print(f"run {run.id} of {run.job}: {count_line(counts)}; {done}{rate}")
    if tokens := token_line(report.tokens):
        STDERR.print(tokens)
    for line in traffic_lines(report.traffic):
        STDERR.print(line)
    for line in noted_words(report.noted, run.id):
        STDERR.print(line, style="yellow")
    STDERR.print(f"output: {run.output or 'none, as nothing was new'}")
    for line in kept_words(report.manifest):
        STDERR.print(line, style="yellow")
    for stay in report.session_costs:
        _show_stay(stay, report.settled, several=len(report.session_costs) > 1)
    for name, why in report.out.items():
        STDERR.print(f"endpoint {name} was given up during the run: {why}", style="yellow")
    for swept in report.swept:
        STDERR.print(f"swept: {swept.proof or swept.failure}")
    if counts.discarded and not counts.completed:
        STDERR.print("nothing was completed: an earlier output that has rows is kept")
    if counts.discarded:
        show_causes(report.causes)
        STDERR.print(f"ask the discarded ones again: orchestrator retry {run.id}")


def kept_words(manifest: Mapping[str, object]) -> list[str]:
    """Return where a delivery has kept an earlier output with more rows, in words."""
    match manifest.get("earlier"):
        case {"run": run, "file": file, "records": int(records)}:
            return [f"fewer rows than before: the output of run {run}, {records:,} rows, is kept beside it as {file}"]
    return []


def _show_stay(stay: SessionCost, settled: int, *, several: bool) -> None:
    spent, whose = stay.spent, f"{stay.endpoint}: " if several else ""
    parts = {"cold start": spent.cold_start, "work": spent.work, "idle": spent.idle, "pausing": spent.pausing}
    split = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items())
    STDERR.print(f"{whose}awake {duration(spent.seconds)}: {split}")
    if stay.cost is not None:
        each = f", {money(stay.cost / settled * 1000)} per 1,000 items" if settled else ""
        STDERR.print(f"{whose}cost {money(stay.cost)} at ${stay.price_per_hour:g} an hour{each}")
    else:
        STDERR.print(f"{whose}cost unknown: set price_per_hour= on the endpoint")


def count_line(counts: Counts) -> str:
    """Return the counts in words."""
    parts = [f"{counts.completed:,} completed", f"{counts.discarded:,} discarded"]
    if counts.unfinished:  # leased items are not shown apart: a process leases far more than it asks at once
        parts.append(f"{counts.unfinished:,} to do")
    return f"{counts.total:,} items: " + ", ".join(parts)


def token_line(tokens: Tokens) -> str:
    """Return for example `tokens 1,234 in, 567 out`, or "" if no server reported its token counts."""
    counts = [(tokens.tokens_in, "in"), (tokens.tokens_out, "out")]
    parts = [f"{count:,} {way}" for count, way in counts if count is not None]
    return f"tokens {', '.join(parts)}" if parts else ""


def show_causes(causes: Sequence[Cause]) -> None:
    """Print failures grouped by cause, with one sample each."""
    table = Table(box=None, pad_edge=False)
    for column in ("items", "cause", "message", "for example"):
        table.add_column(column, overflow="fold", justify="right" if column == "items" else "left")
    for cause in causes:
        status = f" {cause.status}" if cause.status else ""
        table.add_row(f"{cause.items:,}", f"{cause.kind}{status}", cause.message, cause.sample)
    STDERR.print(table)
