"""The report for a terminal; plain text if it is piped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment, Segments

from orchestrator.domain import report_words as words
from orchestrator.domain.answer import noted_words
from orchestrator.domain.ask_totals import ask_lines
from orchestrator.domain.phrases import duration, money, visible
from orchestrator.domain.readings import merged
from orchestrator.domain.traffic import traffic_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from rich.console import Console

    from orchestrator.domain.readings import Span
    from orchestrator.domain.report import Report, RunReport

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 48
_GOOD = {"finished", "running", "queued"}


def show(
    report: Report, console: Console, zone: tzinfo | None = None, worded: Callable[[str], str] = lambda line: line
) -> None:
    """Print the report: pauses that are owed first, then the verdict, the runs, and how endpoints were left.

    `worded`: makes a line as it is shown from one of ours.
    """
    data = report.data
    say = _Voice(console, worded)
    say.head(f"{words.title(report, zone)} ({words.zone_name(data.until, zone)})")
    for debt in report.debts:
        say.loud(words.debt_line(debt, data.until, zone))
        say.command("orchestrator sweep")
    if not data.one_run:
        say.plain(words.verdict_line(report))
        if report.totals.awake:
            say.plain(f"awake: {words.spent_line(report.totals.spent)}")
    for run in report.runs:
        _show_run(say, run, zone)
    _show_endpoints(say, report, zone)
    say.section("still queued", [words.waiting_line(one, zone) for one in data.waiting])
    say.section("schedules without a run", [words.lapse_line(one, zone) for one in data.lapses])
    say.section("job files that cannot be loaded", [f"{one.path}: {one.error}" for one in data.broken])
    if len(report.days) > 1:
        say.section("cost by day (UTC)", [f"{day.what}  {money(day.dollars)}" for day in report.days])
    say.print()


class _Voice:
    """Prints the lines of a report, without interpreting markup in them: all at once, for there may be very many."""

    def __init__(self, console: Console, worded: Callable[[str], str]) -> None:
        self._console = console
        self._worded = worded
        self._lines: list[Segment] = []

    def head(self, line: str) -> None:
        self._print(line, "bold")

    def loud(self, line: str) -> None:
        self._print(f"!! {line}", "bold red")

    def plain(self, line: str) -> None:
        self._print(line)

    def indented(self, line: str, style: str = "") -> None:
        self._print(f"  {line}", style)

    def command(self, line: str) -> None:
        self._print(f"  next: {line}", "cyan")

    def section(self, name: str, lines: Sequence[str]) -> None:
        if lines:
            self.gap()
            self.head(name)
            for line in lines:
                self.indented(line)

    def gap(self) -> None:
        self._lines.append(Segment.line())

    def print(self) -> None:
        self._console.print(Segments(self._lines), end="")

    def _print(self, line: str, style: str = "") -> None:
        self._lines += (Segment(visible(self._worded(line)), self._console.get_style(style)), Segment.line())


def _show_run(say: _Voice, run: RunReport, zone: tzinfo | None) -> None:
    ran = run.ran
    say.gap()
    say.head(f"run {ran.id} of {ran.job}: {run.state}")
    if why := words.why_line(run, zone):
        say.indented(why, "" if run.state in _GOOD else "red")
    say.indented(_when(run, zone))
    if run.late is not None:
        say.indented(f"late: {duration(run.late)} after its deadline", "red")
    say.indented(words.items_line(run))
    for line in noted_words(ran.noted, ran.id):
        say.indented(line, "yellow")
    _show_course(say, run)
    for line in [*traffic_lines(ran.traffic), *ask_lines(run.asks)]:
        say.indented(line)
    if run.cost is not None:
        say.indented(words.cost_line(run))
        say.indented(f"awake: {words.spent_line(run.spent, run.lost)}")
    if run.changes:
        changes = "; ".join(map(words.change_line, run.changes))
        say.indented(f"compared with run {run.before}: {changes}")
    _show_failures(say, run)
    for result in run.ran.notified:
        reason = f": {result.said}" if result.said else ""
        verb = "notified" if result.ok else "could not notify"
        say.indented(f"{verb} {result.hook}{reason}", "" if result.ok else "yellow")
    if ran.owes_notification:
        say.indented(words.OWES_NEWS, "yellow")
        say.command("orchestrator sweep")
    if run.next:
        say.command(run.next)


def _when(run: RunReport, zone: tzinfo | None) -> str:
    begun, ended = run.ran.started_at, run.ran.ended_at
    if begun is None:
        return "not started yet" if ended is None else f"never started, ended {words.clock(ended, zone)}"
    started = f"started {words.clock(begun, zone)}"
    return started if ended is None else f"{started}, ended {words.clock(ended, zone)} ({duration(ended - begun)})"


def _show_course(say: _Voice, run: RunReport) -> None:
    """Print the run's speed, in numbers and as a line of blocks."""
    if run.asked.rate is None:
        return
    say.indented(words.pace_line(run))
    spans = merged(run.course, _WIDTH)
    if len(spans) > 1:
        say.indented(f"items/s  {_line([span.items_per_second for span in spans])}", "dim")
        if any(span.tokens for span in spans):
            say.indented(f"tokens/s {_line([span.tokens_per_second or 0.0 for span in spans])}", "dim")
        if latency := _latency(spans):
            say.indented(latency, "dim")


def _latency(spans: Sequence[Span]) -> str:
    known = [span.latency for span in spans if span.latency is not None]
    return f"latency  {min(known):.3g} to {max(known):.3g} s (medians)" if known else ""


def _line(values: Sequence[float]) -> str:
    top = max(values)
    return "".join(_BLOCKS[min(7, int(8 * value / top))] if value > 0 else " " for value in values) if top else ""


def _show_failures(say: _Voice, run: RunReport) -> None:
    for failure in run.failures:
        say.indented(words.failure_line(failure), "red")
        say.indented(f"  for example {failure.cause.sample}; next: {failure.next}")


def _show_endpoints(say: _Voice, report: Report, zone: tzinfo | None) -> None:
    until = report.data.until
    lines = [words.awake_line(window, until, zone) for window in report.awake]
    say.section("endpoints", lines + [f"{one.endpoint}: {words.proof_line(one, zone)}" for one in report.asleep])
