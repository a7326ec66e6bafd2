"""The progress of a run while it runs: a bar on a terminal, lines in a log file, and the words of both."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from orchestrator.domain.events import Phase
from orchestrator.domain.phrases import duration, money, visible
from orchestrator.domain.terms import cost_of
from orchestrator.engine.tasks import task_group
from orchestrator.report.vitals import brief, follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from orchestrator.domain.worker import Vitals
    from orchestrator.engine.progress import Progress

    Show = Callable[[Progress, Sequence[Vitals]], Coroutine[Any, Any, None]]  # shows progress until it is cancelled

EVERY_LOOK = 0.25  # seconds between two looks at the progress
_BAR = Lock()  # held by the run whose bar is on the terminal
_EVERY_LINE = 15.0  # seconds between two lines in a log file, if nothing special happens
_EVERY_WORD = 2.0  # the same, if the status text of an endpoint that we wait for has changed


@asynccontextmanager
async def shown(progress: Progress, show: Show | None) -> AsyncIterator[None]:
    """Show progress until the block ends, as `show` does, if anything does."""
    if show is None:
        yield
        return
    workers: list[Vitals] = []
    async with task_group() as group:
        group.start_soon(follow, workers)
        group.start_soon(show, progress, workers)
        yield
        group.cancel_scope.cancel()


async def show_bar(console: Console, progress: Progress, workers: Sequence[Vitals]) -> None:
    """Show a bar on a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, speed="", note="")
        while True:
            reading = progress.phase is Phase.INGEST
            bar.update(
                task,
                description=progress.phase,
                completed=progress.plan.total if reading else progress.settled,
                total=None if reading else progress.total,
                speed=_speed_of(progress),
                note=visible(news(progress, workers)),
            )
            await anyio.sleep(EVERY_LOOK)


async def show_only_bar(progress: Progress, workers: Sequence[Vitals]) -> None:
    """Show a bar on standard error, unless another run of this process has one there."""
    if _BAR.acquire(blocking=False):
        try:
            await show_bar(Console(stderr=True), progress, workers)
        finally:
            _BAR.release()


async def show_lines(console: Console, progress: Progress, workers: Sequence[Vitals]) -> None:
    """Print a line now and then, for a log file."""
    notes, status_texts, last = _notes(progress), list[str](), time.monotonic()
    while True:
        await anyio.sleep(EVERY_LOOK)
        new_notes, new_texts = _notes(progress), _texts_while_waking(progress)
        interval = 0.0 if new_notes != notes else _EVERY_WORD if new_texts != status_texts else _EVERY_LINE
        if time.monotonic() < last + interval:
            continue
        notes, status_texts, last = new_notes, new_texts, time.monotonic()
        console.print(progress_line(progress, workers))


def progress_line(progress: Progress, workers: Sequence[Vitals]) -> str:
    """Return one line: `asking: 1,924/2,000 64.2/s, 1.2 s and $0.0003 left · awake 29.8 s, $0.0066`."""
    done = f"{progress.settled:,}/{progress.total:,}" if progress.total else f"{progress.plan.total:,} rows"
    words = f"{progress.phase}: {done} {_speed_of(progress)}".rstrip()
    return " · ".join(filter(None, [words, news(progress, workers)]))


def _speed_of(progress: Progress) -> str:
    if progress.waiting or not (rate := progress.rate()):
        return ""
    left = progress.total - progress.settled
    return speed(rate, left, cost_of(left / rate, progress.price_per_hour))


def _notes(progress: Progress) -> list[str]:
    return [progress.note, progress.idle_rollouts, *map(str, progress.waits)]


def _texts_while_waking(progress: Progress) -> list[str]:
    return [presence.status_text for presence in progress.servers if presence.phase is Phase.WAKE]


def news(progress: Progress, workers: Sequence[Vitals] = ()) -> str:
    """Return one line on the endpoints: their status texts while the run waits for them, their cost so far, notes.

    While the run is working, the line also has the load of the workers on this machine.
    """
    parts = []
    several = len(progress.servers) > 1
    for presence in progress.servers:
        said = [presence.status_text] if presence.phase is not Phase.WORK and presence.status_text else []
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
    if progress.idle_rollouts:
        parts.append(progress.idle_rollouts)
    if progress.note:
        parts.append(progress.note)
    return " · ".join(parts)


def speed(rate: float | None, left: int, dollars: float | None) -> str:
    """Return for example `812.0/s, 1 min 3 s and $0.0140 left`, or "" if the rate is not known."""
    if not rate:
        return ""
    cost = "" if dollars is None else f" and {money(dollars)}"
    return f"{rate:,.1f}/s, {duration(left / rate)}{cost} left"
