"""Load tests on a terminal: the figures while it goes on, and at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
from rich.console import Group
from rich.live import Live
from rich.table import Table

from orchestrator.domain.load_words import figure_words, seconds, test_words, title
from orchestrator.domain.phrases import duration, rate
from orchestrator.report.progress import news, progress_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from orchestrator.domain.load_figures import LoadFigures, LoadTest
    from orchestrator.domain.load_words import Words
    from orchestrator.domain.worker import Vitals
    from orchestrator.engine.bench.load_test import LoadProgress
    from orchestrator.engine.progress import Progress

_EVERY_LOOK, _EVERY_LINE = 0.5, 10.0  # seconds between two looks at the figures, and between two lines in a log file


def show_load_test(test: LoadTest, console: Console) -> None:
    """Print what a load test has measured."""
    console.print(title(test))
    if len(test.steps) > 1:
        console.print(_steps(test.steps))
    console.print(_table([*figure_words(test.shown), *test_words(test)]))


async def show_live(
    shown: LoadProgress, whole: float, console: Console, progress: Progress, _workers: Sequence[Vitals]
) -> None:
    """Show the figures on a terminal while they change. `whole`: for how many seconds the load test sends."""
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(_view(shown, whole, progress), refresh=True)
            await anyio.sleep(_EVERY_LOOK)


async def show_lines(
    shown: LoadProgress, whole: float, console: Console, progress: Progress, _workers: Sequence[Vitals]
) -> None:
    """Print a line now and then, for a log file."""
    while True:
        await anyio.sleep(_EVERY_LINE)
        figures = None if shown.figures is None else shown.figures()
        console.print(progress_line(progress, ()) if figures is None else _line(figures, shown.began, whole, progress))


def _view(shown: LoadProgress, whole: float, progress: Progress) -> RenderableType:
    if shown.figures is None:
        return " · ".join(filter(None, [str(progress.phase), news(progress)]))
    figures = shown.figures()
    parts: list[RenderableType] = [_head(figures, shown.began, whole, progress)]
    parts += [_steps(shown.steps)] if shown.steps else []
    return Group(*parts, _table(figure_words(figures)))


def _head(figures: LoadFigures, began: float, whole: float, progress: Progress) -> str:
    where = f"{figures.load}: {duration(time.monotonic() - began)} of {duration(whole)}"
    return " · ".join(filter(None, [where, news(progress)]))


def _line(figures: LoadFigures, began: float, whole: float, progress: Progress) -> str:
    latency = figures.from_arrival
    said = f"{figures.answered:,} answered, {figures.failed:,} failed, {rate(figures.requests_per_second)}/s"
    said += f", p50 {seconds(latency.p50)}, p99 {seconds(latency.p99)}" if latency is not None else ""
    return f"{_head(figures, began, whole, progress)} · {said}"


def _table(words: Words) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, figure in words:
        table.add_row(name, figure)
    return table


def _steps(steps: Sequence[LoadFigures]) -> Table:
    """Return a row for each step of a sweep."""
    table = Table(box=None, pad_edge=False)
    for column in ("in flight", "items/s", "p50", "p95", "p99", "failed"):
        table.add_column(column, justify="right")
    table.add_column("objectives")
    for step in steps:
        latency = step.from_sending
        kept = "" if not step.verdicts else "met" if step.stair.kept else "missed"
        percentiles = ["", "", ""] if latency is None else map(seconds, (latency.p50, latency.p95, latency.p99))
        failed = f"{step.failed:,}" if step.failed else ""
        table.add_row(f"{step.concurrency:,}", rate(step.items_per_second), *percentiles, failed, kept)
    return table
