"""A load test as one HTML file, with plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain import report_words
from orchestrator.domain.load import Sweep
from orchestrator.domain.load_words import figure_words, seconds, test_words, title
from orchestrator.domain.phrases import duration, money, rate
from orchestrator.report.charts import Line, line_chart
from orchestrator.report.document import document
from orchestrator.report.markup import Markup, joined, scrolling, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from orchestrator.domain.load_figures import LoadFigures, LoadTest, Percentiles
    from orchestrator.domain.load_tally import LoadSlice
    from orchestrator.domain.load_words import Words

_PERCENTS = (50, 95, 99)


def load_page(test: LoadTest, zone: tzinfo | None = None) -> str:
    """Return the whole document. Times are in `zone`; None is the zone of this machine."""
    began = f"{report_words.clock(test.began_at, zone)} {report_words.zone_name(test.began_at, zone)}"
    sub = f"Began {began}; asked with {test.client}."
    parts = [_tiles(test), _facts("Figures at the knee" if test.knee else "Figures", figure_words(test.shown))]
    if isinstance(test.load, Sweep):
        parts.append(_steps(test))
    parts += [_course(test), _facts("The load test", test_words(test))]
    return document(f"Load test: {title(test)}", sub, parts)


def _tiles(test: LoadTest) -> Markup:
    shown, latency = test.shown, test.shown.from_arrival
    tiles = [(f"{rate(shown.requests_per_second)}/s", "requests answered")]
    if latency is not None:
        tiles += [(seconds(latency.p50), "median latency"), (seconds(latency.p99), "latency, 99 %")]
    tiles.append((f"{shown.failed + shown.cut_off + shown.unsent:,}", "requests without an answer"))
    if test.cost_per_1000 is not None:
        tiles.append((money(test.cost_per_1000), "per 1,000 items"))
    return tag(
        "div", *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles), class_="tiles"
    )


def _facts(name: str, words: Words) -> Markup:
    rows = (joined(tag("dt", one), tag("dd", figure)) for one, figure in words)
    return tag("section", tag("h2", name), tag("dl", *rows, class_="facts"))


def _legend(kinds: Sequence[tuple[str, str]]) -> Markup:
    return tag("p", *(tag("span", tag("i", class_=kind), says) for kind, says in kinds), class_="legend")


# -- over time ---------------------------------------------------------------------------------------------------------


def _course(test: LoadTest) -> Markup:
    course = test.course
    latency = [
        Line(f"p{percent}", _over(course, _percentile(percent)), _says(f"p{percent}", seconds)) for percent in _PERCENTS
    ]
    rates = [
        Line("latency", _over(course, lambda part: part.planned / part.seconds), _says("arrivals", _per_second)),
        Line("items", _over(course, lambda part: part.answered / part.seconds), _says("answers", _per_second)),
        Line("failed", _over(course, lambda part: part.failed / part.seconds), _says("failures", _per_second)),
    ]
    flight = [Line("flight", _over(course, lambda part: part.in_flight), _says("in flight", "{:,.0f}".format))]
    parts = [
        tag("h3", "Requests per second"),
        line_chart(rates, "seconds", "Requests per second"),
        _legend([("latency", "arrivals"), ("items", "answers"), ("failed", "failures")]),
        tag("h3", "Latency in seconds, from the planned arrival, by the moment of arrival"),
        line_chart(latency, "seconds", "Latency"),
        _legend([(f"p{percent}", f"{percent} %") for percent in _PERCENTS]),
        tag("h3", "Requests in flight, at most"),
        line_chart(flight, "seconds", "Requests in flight"),
    ]
    if any(part.tokens for part in course):
        tokens = [Line("tokens", _over(course, lambda part: part.tokens / part.seconds), _says("tokens", _per_second))]
        parts += [tag("h3", "Tokens per second"), line_chart(tokens, "seconds", "Tokens per second")]
    return tag("section", tag("h2", "Course"), *parts)


def _over(course: Sequence[LoadSlice], figure: Callable[[LoadSlice], float | None]) -> list[tuple[float, float]]:
    """Return a figure over time: at the middle of each part in which it is known."""
    return [((part.since + part.until) / 2, known) for part in course if (known := figure(part)) is not None]


def _percentile(percent: float) -> Callable[[LoadSlice], float | None]:
    return lambda part: part.latency.percentile(percent)


def _says(name: str, words: Callable[[float], str]) -> Callable[[float, float], str]:
    return lambda at, figure: f"{name}: {words(figure)}\nafter {duration(at)}"


def _per_second(figure: float) -> str:
    return f"{rate(figure)}/s"


# -- a sweep -----------------------------------------------------------------------------------------------------------


def _steps(test: LoadTest) -> Markup:
    steps = sorted(test.steps, key=lambda step: step.concurrency or 0)
    knee = test.knee.concurrency if test.knee is not None else None
    throughput = [Line("items", [_point(step, step.items_per_second) for step in steps], _at("items/s", _per_second))]
    known = [(step, latency) for step in steps if (latency := step.from_sending) is not None]
    latencies = [
        Line(f"p{percent}", [_point(step, _of(found, percent)) for step, found in known], _at(f"p{percent}", seconds))
        for percent in _PERCENTS
    ]
    return tag(
        "section",
        tag("h2", "Steps of the sweep"),
        scrolling("Steps of the sweep", _table(steps, knee)),
        tag("h3", "Items per second, by requests in flight; the knee is marked"),
        line_chart(throughput, "requests in flight", "Items per second by requests in flight", knee),
        tag("h3", "Latency in seconds, by requests in flight"),
        line_chart(latencies, "requests in flight", "Latency by requests in flight", knee),
        _legend([(f"p{percent}", f"{percent} %") for percent in _PERCENTS]),
    )


def _point(step: LoadFigures, figure: float) -> tuple[float, float]:
    return float(step.concurrency or 0), figure


def _of(latency: Percentiles, percent: int) -> float:
    return {50: latency.p50, 95: latency.p95, 99: latency.p99}[percent]


def _at(name: str, words: Callable[[float], str]) -> Callable[[float, float], str]:
    return lambda concurrency, figure: f"{name}: {words(figure)}\n{concurrency:,.0f} in flight"


def _table(steps: Sequence[LoadFigures], knee: int | None) -> Markup:
    heads = ["in flight", "items/s", "p50", "p95", "p99", "failed", "objectives"]
    rows = [tag("tr", *(tag("th", head, class_="n") for head in heads))]
    for step in steps:
        latency = step.from_sending
        cells = [f"{step.concurrency:,}", rate(step.items_per_second)]
        cells += ["", "", ""] if latency is None else [seconds(_of(latency, percent)) for percent in _PERCENTS]
        cells += [f"{step.failed:,}" if step.failed else ""]
        cells += ["" if not step.verdicts else "met" if step.stair.kept else "missed"]
        if step.concurrency == knee:
            cells[0] = f"knee: {cells[0]}"
        rows.append(tag("tr", *(tag("td", cell, class_="n") for cell in cells)))
    return tag("table", *rows)
