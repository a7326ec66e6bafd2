"""The report as one HTML file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.domain.phrases import count, duration, money, rate
from orchestrator.domain.readings import merged
from orchestrator.domain.report import DAYS
from orchestrator.report.charts import Bar, ChartRow, Frame, columns, spark, timeline
from orchestrator.report.document import document
from orchestrator.report.markup import Markup, joined, scrolling, tag
from orchestrator.report.run_section import BADGES, arrow, run_section

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from orchestrator.domain.readings import Span
    from orchestrator.domain.report import Report, RunReport

IN_FULL = 6  # show all runs in full up to this many; beyond that, only those in trouble
_ROWS = 40  # of the timeline
_KINDS = [("awake", "endpoint awake"), ("run", "run"), ("asking", "asking"), ("trouble", "ended early")]


def page(report: Report, zone: tzinfo | None = None) -> str:
    """Return the whole document. Times are in `zone`; None is the zone of this machine."""
    data, name = report.data, words.zone_name(report.data.until, zone)
    sub = f"Report of {words.clock(data.until, zone)} {name}, as the ledger had it; all clocks are {name}."
    return document(words.title(report, zone), sub, [*sections(report, zone), _hint(report)])


def sections(report: Report, zone: tzinfo | None = None, most: int | None = None) -> list[Markup]:
    """Return the report without its title, for a page whose style sheet is `page.css`.

    `most`: the number of runs that are shown in full, of those that need attention; the latest.
    """
    data = report.data
    parts = _notices(report, zone)
    if not data.one_run:
        parts.append(tag("p", words.verdict_line(report), class_="verdict"))
    if report.runs:
        parts.append(_tiles(report))
        parts.append(_timeline(report, zone))
    if len(report.runs) > 1:
        parts.append(_runs(report))
    in_full = _in_full(report)
    parts += [run_section(run, data.until, zone) for run in in_full[-(most or len(in_full)) :]]
    parts.append(_endpoints(report, zone))
    parts.append(_days(report))
    parts.append(_list("Still queued", [words.waiting_line(one, zone) for one in data.waiting]))
    parts.append(_list("Schedules without a run", [words.lapse_line(one, zone) for one in data.lapses]))
    parts.append(_list("Job files that cannot be loaded", [f"{one.path}: {one.error}" for one in data.broken]))
    return parts


def _hint(report: Report) -> Markup:
    if len(_in_full(report)) == len(report.runs):
        return Markup("")
    text = "Only runs that need attention are shown in full. To see another one:"
    return tag("footer", text, Markup(" "), tag("code", "orchestrator report RUN --html FILE"))


def _in_full(report: Report) -> list[RunReport]:
    if len(report.runs) <= IN_FULL:
        return list(report.runs)
    return [run for run in report.runs if run.in_trouble]


def _notices(report: Report, zone: tzinfo | None) -> list[Markup]:
    """Return the notices at the top: first the pauses that are owed."""
    until, found = report.data.until, []
    for debt in report.debts:
        command = tag("p", "Look at it now, then type ", tag("code", "orchestrator sweep"))
        found.append(
            tag("div", tag("p", words.debt_line(debt, until, zone)), command, class_="notice bad", role="alert")
        )
    lines = [words.awake_line(window, until, zone) for window in report.awake]
    found += [tag("div", tag("p", line), class_="notice warn") for line in lines]
    if report.asleep and not found:
        found.append(tag("div", tag("p", "Nothing is awake, and nothing is owed."), class_="notice good"))
    return found


def _tiles(report: Report) -> Markup:
    totals, asked = report.totals, report.totals.asked
    tiles = [(f"{totals.finished} of {len(report.runs)}", "runs finished")] if len(report.runs) > 1 else []
    tiles += [(f"{asked.completed:,}", "items completed"), (f"{asked.discarded:,}", "items discarded")]
    if asked.rate is not None:
        tiles.append((rate(asked.rate), "items/s while asking"))
    if asked.token_rate is not None:
        tokens = (asked.tokens_in or 0) + (asked.tokens_out or 0)
        tiles.append((_large(tokens), f"tokens, {rate(asked.token_rate)}/s"))
    if totals.awake:
        tiles += [(duration(totals.awake), "endpoints awake"), (money(totals.dollars), "cost")]
    if totals.per_1000 is not None and totals.awake:
        tiles.append((money(totals.per_1000), "per 1,000 items"))
    return tag(
        "div", *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles), class_="tiles"
    )


def _large(number: int) -> str:
    """Return for example `2.77 M`. Three digits are enough, since the exact number is shown elsewhere."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


# -- what happened when -----------------------------------------------------------------------------------------------


def _timeline(report: Report, zone: tzinfo | None) -> Markup:
    rows = [*_endpoint_rows(report), *(_run_row(run, report.data.until) for run in report.runs)][-_ROWS:]
    bars = [bar for row in rows for bar in row.bars]
    if not bars:
        return Markup("")
    since, until = max(report.data.since, min(bar.since for bar in bars)), max(bar.until for bar in bars)
    margin = max(1.0, (until - since) * 0.02)
    shown = {bar.kind for bar in bars}
    legend = _legend([(kind, says) for kind, says in _KINDS if kind in shown])
    return tag(
        "section", tag("h2", "What happened when"), timeline(rows, Frame(since - margin, until + margin, zone)), legend
    )


def _endpoint_rows(report: Report) -> list[ChartRow]:
    """Return a row for each endpoint, with each of its windows once, however many runs shared it."""
    data, windows = report.data, {}
    ran = {run.ran.id for run in report.runs}
    for use in data.receipts:
        closed = use.billed_to or data.until
        if closed > data.since and (not data.one_run or use.run_id in ran):
            says = f"{use.endpoint}: awake {duration(closed - use.billed_from)}"
            windows[use.window_id] = (use.endpoint, Bar(use.billed_from, closed, "awake", says))
    names = sorted({endpoint for endpoint, _ in windows.values()})
    return [ChartRow(name, [bar for endpoint, bar in windows.values() if endpoint == name]) for name in names]


def _run_row(run: RunReport, now: float) -> ChartRow:
    begun, ended = run.ran.started_at, run.ran.ended_at or now
    label = f"{run.ran.id} {run.ran.job}"
    if begun is None:
        return ChartRow(label, [])
    ends = [Bar(ended, ended, "trouble", f"run {run.ran.id}: {run.state}")] if BADGES.get(run.state) == "bad" else []
    bars = [Bar(begun, ended, "run", f"run {run.ran.id} of {run.ran.job}: {run.state}, {duration(ended - begun)}")]
    for stretch in _stretches(run.course):
        since, until, items = stretch[0].since, stretch[-1].until, sum(span.items for span in stretch)
        says = f"run {run.ran.id}: asking for {duration(until - since)}, {count(items, 'item')}"
        bars.append(Bar(since, until, "asking", says))
    return ChartRow(label, bars + ends)


def _stretches(course: Sequence[Span]) -> list[list[Span]]:
    """Return the uninterrupted periods in which requests were sent."""
    found: list[list[Span]] = []
    for span in course:
        if span.asking and found and found[-1][-1].until == span.since:
            found[-1].append(span)
        elif span.asking:
            found.append([span])
    return found


def _legend(kinds: Sequence[tuple[str, str]]) -> Markup:
    return tag("p", *(tag("span", tag("i", class_=kind), says) for kind, says in kinds), class_="legend")


# -- tables -----------------------------------------------------------------------------------------------------------


def _runs(report: Report) -> Markup:
    heads = [
        ("run", "n"),
        ("job", ""),
        ("state", ""),
        ("items", "n"),
        ("discarded", "n"),
        ("items/s", "n"),
        ("pace", ""),
    ]
    heads += [("awake", "n"), ("cost", "n"), ("per 1,000", "n")]
    header = tag("tr", *(tag("th", name, class_=kind or None) for name, kind in heads))
    rows = [_run_line(run) for run in report.runs]
    note = tag(
        "p", "Arrows compare a run with the job's previous run; green is better, red is worse.", class_="soft small"
    )
    arrows = any(change.verdict != "same" for run in report.runs for change in run.changes)
    table = scrolling("Table of runs", tag("table", header, *rows))
    return tag("section", tag("h2", "Runs"), table, note if arrows else Markup(""))


def _run_line(run: RunReport) -> Markup:
    ran, asked, cost = run.ran, run.asked, run.cost
    each = run.figures.cost_per_1000
    cells = [
        tag("td", str(ran.id), class_="n"),
        tag("td", ran.job, class_="wide"),
        tag("td", tag("span", run.state, class_=f"badge {BADGES.get(run.state, '')}")),
        tag("td", f"{ran.completed + ran.discarded:,}", class_="n"),
        tag("td", f"{ran.discarded:,}" if ran.discarded else "", arrow(run, "failures"), class_="n"),
        tag("td", rate(asked.rate) if asked.rate is not None else "", arrow(run, "items/s"), class_="n"),
        tag("td", spark([span.items_per_second for span in merged(run.course, 40)], "items/s over the run")),
        tag("td", duration(cost.seconds) if cost else "", class_="n"),
        tag("td", money(cost.dollars) if cost else "", class_="n"),
        tag("td", money(each) if each is not None else "", arrow(run, "cost per 1,000"), class_="n"),
    ]
    return tag("tr", *cells)


def _endpoints(report: Report, zone: tzinfo | None) -> Markup:
    if not report.asleep:
        return Markup("")
    rows = [tag("tr", tag("td", one.endpoint), tag("td", words.proof_line(one, zone))) for one in report.asleep]
    header = tag(
        "tr", tag("th", "endpoint"), tag("th", "how it was left: its last state, when it was read, and by what")
    )
    return tag("section", tag("h2", "Endpoints"), scrolling("How endpoints were left", tag("table", header, *rows)))


def _days(report: Report) -> Markup:
    """Return the costs of the last days. A day without a known price is drawn as zero, and a note says so."""
    costs = {day.what: day for day in report.days}
    if not costs:
        return Markup("")
    last = datetime.fromtimestamp(report.data.until, UTC)
    bars = []
    for ago in reversed(range(DAYS)):
        day = last - timedelta(days=ago)
        cost = costs.get(f"{day:%Y-%m-%d}")
        said = f"{day:%Y-%m-%d}: nothing" if cost is None else f"{cost.what}: {_costs(cost.dollars, cost.seconds)}"
        bars.append((f"{day:%b} {day.day}", (cost.dollars if cost else None) or 0.0, said))
    known = [cost.dollars for cost in costs.values() if cost.dollars is not None]
    note = (
        f"{money(sum(known))} in {count(DAYS, 'day')}; a cost counts for the day (UTC) on which the endpoint was woken."
    )
    if len(known) < len(costs):
        note += " Some prices are not known."
    return tag("section", tag("h2", "Cost by day"), columns(bars, "$"), tag("p", note, class_="soft"))


def _costs(dollars: float | None, seconds: float) -> str:
    return f"{money(dollars)} for {duration(seconds)} awake"


def _list(title: str, lines: Sequence[str]) -> Markup:
    if not lines:
        return Markup("")
    return tag("section", tag("h2", title), joined(*(tag("p", line) for line in lines)))
