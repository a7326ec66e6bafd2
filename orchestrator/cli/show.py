"""What the user sees of a run at its end, on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from orchestrator.cli.terminal import STDERR
from orchestrator.domain.answer import noted_words
from orchestrator.domain.ask_totals import ask_lines
from orchestrator.domain.phrases import count, duration, money
from orchestrator.domain.phrases import rate as per_second
from orchestrator.domain.report_words import billed_words
from orchestrator.domain.traffic import traffic_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.charges import Charge
    from orchestrator.domain.run import Cause, Run, Tokens
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.engine.run.session import SessionCost


def report_lines(report: RunResult) -> None:
    """Print the closing report: what was asked, the results, the cost, and how the endpoint was left."""
    counts, run = report.counts, report.run
    done = f"{report.settled:,} settled now with {count(report.asked, 'request')} in {duration(report.seconds)}"
    done += f", {report.shared:,} of them by the answer to the same request" if report.shared else ""
    rate = f" ({per_second(report.settled / report.asking)}/s while asking)" if report.settled and report.asking else ""
    STDERR.print(f"run {run.id} of {run.job}: {counts}; {done}{rate}")
    if tokens := token_line(report.tokens):
        STDERR.print(tokens)
    for line in [*traffic_lines(report.traffic), *ask_lines(report.asks)]:
        STDERR.print(line)
    for line in noted_words(report.noted, run.id):
        STDERR.print(line, style="yellow")
    STDERR.print(f"output: {_output_words(run)}")
    for line in kept_words(report.manifest):
        STDERR.print(line, style="yellow")
    for stay in report.session_costs:
        _show_stay(stay, report.settled, several=len(report.session_costs) > 1)
    _show_endpoints(report)
    if counts.discarded and not counts.completed:
        kept = report.manifest.get("kept_from_run")
        output = "the output has no rows" if kept is None else f"the output of run {kept} is kept"
        STDERR.print(f"nothing was completed: {output}")
    if counts.discarded:
        show_causes(report.causes, counts.discarded)
        STDERR.print(f"ask the discarded ones again: orchestrator retry {run.id}")


def _show_endpoints(report: RunResult) -> None:
    for name, charge in report.charges.items():
        STDERR.print(charge_line(name, charge))
    for name, why in report.out.items():
        STDERR.print(f"endpoint {name} was given up during the run: {why}", style="yellow")
    for swept in report.swept:
        STDERR.print(f"swept: {swept.proof or swept.failure}")


def _output_words(run: Run) -> str:
    if run.spec.about.get("output") is None:
        return f"in the ledger, as the job has no sink; `orchestrator export {run.id} -o FILE` writes it to a file"
    return run.output or "none, as nothing was new"


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
    if stay.billed is not None:
        STDERR.print(f"{whose}{billed_words(stay.billed.seconds, stay.billed.dollars)}")


def charge_line(endpoint: str, charge: Charge) -> str:
    """Return for example `https://... charged $0.0210 for 42 requests, 8,400 tokens in, 2,100 out`."""
    line = f"{endpoint} charged {money(charge.dollars)} for {count(round(charge.requests), 'request')}"
    return f"{line}, {charge.tokens_in:,.0f} tokens in, {charge.tokens_out:,.0f} out" if charge.tokens_in else line


def token_line(tokens: Tokens) -> str:
    """Return for example `tokens 1,234 in, 567 out`, or "" if no server reported its token counts."""
    counts = [(tokens.tokens_in, "in"), (tokens.tokens_out, "out")]
    parts = [f"{count:,} {way}" for count, way in counts if count is not None]
    return f"tokens {', '.join(parts)}" if parts else ""


def show_causes(causes: Sequence[Cause], discarded: int) -> None:
    """Print the most frequent causes of failures, with one sample each, and how many of the discarded have others."""
    table = Table(box=None, pad_edge=False)
    for column in ("items", "cause", "message", "for example"):
        table.add_column(column, overflow="fold", justify="right" if column == "items" else "left")
    for cause in causes:
        status = f" {cause.status}" if cause.status else ""
        table.add_row(f"{cause.items:,}", f"{cause.kind}{status}", cause.message, cause.sample)
    STDERR.print(table)
    if (others := discarded - sum(cause.items for cause in causes)) > 0:
        STDERR.print(f"and {count(others, 'item')} for other causes")
