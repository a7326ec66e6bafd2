"""The section of one run: its figures, charts and failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain import report_words as words
from orchestrator.domain.answer import noted_words
from orchestrator.domain.comparison import Verdict
from orchestrator.domain.phrases import duration, money, rate
from orchestrator.domain.traffic import traffic_lines
from orchestrator.report.charts import Frame, course_chart, stack
from orchestrator.report.markup import Markup, joined, scrolling, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.readings import Span
    from orchestrator.domain.report import RunReport

BADGES = {
    "finished": "good",
    "failed": "bad",
    "abandoned": "bad",
    "stopped": "bad",
    "held": "warn",
    "queued": "warn",
    "completed": "good",
    "discarded": "bad",
}
_SPENT = [
    ("cold", "cold start"),
    ("work", "work"),
    ("idle", "idle"),
    ("pausing", "pausing"),
    ("lost", "unaccounted for"),
]

_CHARTS: Sequence[tuple[str, str, Callable[[Span], float | None], Callable[[float], str]]] = (
    ("Throughput, items/s", "items", lambda span: span.items_per_second, lambda figure: f"{rate(figure)} items/s"),
    ("Tokens/s", "tokens", lambda span: span.tokens_per_second, lambda figure: f"{rate(figure)} tokens/s"),
    ("Requests in flight", "flight", lambda span: span.in_flight, lambda figure: f"{figure:g} in flight"),
    ("Latency, s (median)", "latency", lambda span: span.latency, lambda figure: f"{figure:.3g} s"),
)


def run_section(run: RunReport, now: float, zone: tzinfo | None) -> Markup:
    """Return the section with everything that the report has on a run."""
    badge = tag("span", run.state, class_=f"badge {BADGES.get(run.state, '')}")
    parts = [tag("h2", f"Run {run.ran.id} of {run.ran.job} ", badge)]
    if why := words.why_line(run, zone):
        parts.append(tag("div", tag("p", why), *_next(run), class_=f"notice {BADGES.get(run.state, 'warn')}"))
    asks = [tag("h3", "What was asked"), asks_table(run)] if run.asks else []
    parts += [facts(run, now, zone), *asks, _awake(run), *_course(run, zone), _failures(run)]
    return tag("section", *parts)


def _next(run: RunReport) -> list[Markup]:
    return [tag("p", "next: ", tag("code", run.next))] if run.next else []


def facts(run: RunReport, now: float, zone: tzinfo | None) -> Markup:
    """Return what is known about a run, as a list of terms."""
    ran, asked = run.ran, run.asked
    begun, ended = ran.started_at, ran.ended_at
    known: list[tuple[str, str]] = []
    if begun is not None:
        until = f" to {words.clock(ended, zone)}" if ended is not None else ", still running"
        known.append(("when", f"{words.clock(begun, zone)}{until} ({duration((ended or now) - begun)})"))
    if run.late is not None:
        known.append(("late", f"{duration(run.late)} after its deadline"))
    left = f", {run.left:,} to do" if run.left else ""
    known.append(("items", f"{ran.completed:,} completed, {ran.discarded:,} discarded{left}, of {ran.total:,}"))
    known += [("noted", line) for line in noted_words(ran.noted, ran.id)]
    if asked.rate is not None:
        known.append(("pace", f"{rate(asked.rate)} items/s while asking, best {rate(asked.peak)}/s"))
    if asked.token_rate is not None:
        tokens = f"{asked.tokens_in or 0:,} in, {asked.tokens_out or 0:,} out"
        known.append(("tokens", f"{tokens}; {rate(asked.token_rate)}/s"))
    known += [("requests", line) for line in traffic_lines(ran.traffic)]
    if run.cost is not None:
        each = run.figures.cost_per_1000
        thousand = f", {money(each)} per 1,000 items" if each is not None else ""
        known.append(("cost", f"{money(run.cost.dollars)} for {duration(run.cost.seconds)} awake{thousand}"))
    if ran.output:
        known.append(("output", ran.output))
    rows = [joined(tag("dt", name), tag("dd", fact)) for name, fact in known]
    if run.changes:
        rows.append(joined(tag("dt", f"compared with run {run.before}"), tag("dd", _chips(run))))
    if ran.owes_notification:
        rows.append(joined(tag("dt", "hooks"), tag("dd", words.OWES_NEWS)))
    for result in ran.notified:
        hook = f"{result.hook}{f': {result.said}' if result.said else ''}"
        rows.append(joined(tag("dt", "notified" if result.ok else "could not notify"), tag("dd", hook)))
    return tag("dl", *rows, class_="facts")


def asks_table(run: RunReport) -> Markup:
    """Return what a rollout has asked, by endpoint and step."""
    heads = [("endpoint", ""), ("step", "")]
    heads += [(name, "n") for name in ("asks", "discarded", "retried", "tokens in", "tokens out", "took", "cost")]
    header = tag("tr", *(tag("th", name, class_=kind or None) for name, kind in heads))
    rows = [
        tag("tr", *(tag("td", cell, class_=kind or None) for cell, (_, kind) in zip(_cells(total), heads, strict=True)))
        for total in run.asks
    ]
    return scrolling(f"Asks of run {run.ran.id}", tag("table", header, *rows))


def _cells(total: AskTotal) -> list[str]:
    counts = (total.asks, total.discarded, total.retried, total.tokens_in, total.tokens_out)
    numbers = ["" if number is None else f"{number:,}" for number in counts]
    cost = "" if total.cost is None else money(total.cost)
    return [total.endpoint or "functions", total.step or "", *numbers, duration(total.seconds), cost]


def arrow(run: RunReport, what: str) -> Markup:
    """Return an arrow for the change of a figure since the previous run, or nothing if it is the same."""
    found = next((change for change in run.changes if change.what == what and change.verdict is not Verdict.SAME), None)
    if found is None:
        return Markup("")
    way = "▲" if found.now > found.before else "▼"
    return tag("span", f" {way}", class_=f"arrow {found.verdict}", title=words.change_line(found))


def _chips(run: RunReport) -> Markup:
    """Return the comparison with the previous run."""
    return joined(*(tag("span", words.change_line(one), class_=f"chip {one.verdict}") for one in run.changes))


def _awake(run: RunReport) -> Markup:
    """Return a bar that shows how the seconds awake were spent."""
    spent = run.spent
    lengths = [spent.cold_start, spent.work, spent.idle, spent.pausing, run.lost]
    if not sum(lengths):
        return Markup("")
    pieces = [
        (kind, length, f"{name} {duration(length)}")
        for (kind, name), length in zip(_SPENT, lengths, strict=True)
        if length
    ]
    legend = tag("p", *(tag("span", tag("i", class_=kind), says) for kind, _, says in pieces), class_="legend")
    return joined(tag("h3", "How the time awake was spent"), stack(pieces), legend)


def _course(run: RunReport, zone: tzinfo | None) -> list[Markup]:
    spans = run.course
    if not spans:
        return []
    frame = Frame(spans[0].since, spans[-1].until, zone)
    found = []
    for title, kind, value, says in _CHARTS:
        if any(value(span) for span in spans):
            found += [tag("h3", title), course_chart(spans, frame, value, says, kind, f"{title}, run {run.ran.id}")]
    return found


def _failures(run: RunReport) -> Markup:
    if not run.failures:
        return Markup("")
    heads = [("items", "n"), ("cause", ""), ("message", ""), ("for example", ""), ("next", "")]
    header = tag("tr", *(tag("th", name, class_=kind or None) for name, kind in heads))
    rows = []
    for failure in run.failures:
        cause = failure.cause
        status = f" {cause.status}" if cause.status else ""
        rows.append(
            tag(
                "tr",
                tag("td", f"{cause.items:,}", class_="n"),
                tag("td", f"{cause.kind}{status}"),
                tag("td", cause.message, class_="wide"),
                tag("td", cause.sample, class_="wide"),
                tag("td", tag("code", failure.next)),
            )
        )
    return joined(
        tag("h3", "Failures by cause"), scrolling(f"Failures of run {run.ran.id}", tag("table", header, *rows))
    )
