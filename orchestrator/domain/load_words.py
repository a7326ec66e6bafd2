"""Words about load tests, for the terminal and the page: each figure with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.load import Sweep
from orchestrator.domain.phrases import count, duration, money, rate
from orchestrator.domain.terms import cost_of
from orchestrator.domain.traffic import status_words

if TYPE_CHECKING:
    from orchestrator.domain.load_figures import (
        Client,
        LoadFigures,
        LoadTest,
        ObjectiveVerdict,
        Percentiles,
        ServerSide,
    )

Words = list[tuple[str, str]]  # the name of a figure, and the figure


def seconds(figure: float | None) -> str:
    """Return a latency with three digits: `812 ms`, `1.23 s`; "" if there is none."""
    if figure is None:
        return ""
    return f"{figure:.3g} s" if figure >= 1 else f"{figure * 1000:.3g} ms"


def title(test: LoadTest) -> str:
    """Return which endpoint was tested, how and for how long."""
    each = f", {test.items_per_request} items in each request" if test.items_per_request > 1 else ""
    return f"endpoint {test.endpoint}: {test.load}, for {duration(test.seconds)}{each}"


def figure_words(figures: LoadFigures) -> Words:
    """Return what happened under one load."""
    lost = [
        (figures.failed, "failed"),
        (figures.cut_off, "cut off at the end"),
        (figures.unsent, "never sent"),
    ]
    parts = [f"{number:,} {what}" for number, what in lost if number]
    words = [("requests", ", ".join([f"{figures.sent:,} sent", f"{figures.answered:,} answered", *parts]))]
    if figures.late is not None:
        words.append(("arrivals", _arrivals(figures)))
        words.append(("latency from arrival", _percentiles(figures.from_arrival, figures)))
        words.append(("latency from sending", _percentiles(figures.from_sending, figures)))
    else:
        words.append(("latency", _percentiles(figures.from_sending, figures)))
    if figures.first_text is not None:
        words.append(("first text", _percentiles(figures.first_text, figures)))
    words.append(("throughput", _throughput(figures)))
    words.append(("in flight", f"{figures.mean_in_flight:.3g} on average, {figures.most_in_flight:,} at most"))
    if figures.statuses:
        words.append(("by status", status_words(figures.statuses)))
    for cause in figures.causes:
        status = f" {cause.status}" if cause.status else ""
        words.append(("failed", f"{cause.requests:,} {cause.kind}{status}: {cause.message}"))
    words += [("objective", _verdict(one)) for one in figures.verdicts]
    if figures.goodput is not None:
        words.append(("goodput", f"{rate(figures.goodput)} requests/s were answered in time"))
    words.append(("client", _client(figures.client)))
    return words


def test_words(test: LoadTest) -> Words:
    """Return what is known of the whole load test beside the figures of its load."""
    words: Words = []
    if isinstance(test.load, Sweep):
        words.append(("knee", _knee(test)))
    if test.ended:
        words.append(("ended early", test.ended))
    elif test.interrupted:
        words.append(("ended early", "stopped as asked"))
    if test.server is not None:
        words.append(("server", _server(test.server)))
    words.append(("apart", f"cold start {duration(test.cold_start)}, first request {seconds(test.first_answer)}"))
    if test.spent is not None:
        words.append(("cost", _cost(test)))
    elif test.charged is not None:
        said, each = f"{money(test.charged.dollars)} for answers", test.cost_per_1000
        words.append(("cost", said if each is None else f"{said}; {money(each)} per 1,000 items"))
    if test.remembered is not None:
        words.append(("remembered", f"runs begin with {count(test.remembered, 'request')} in flight"))
    return words


def _arrivals(figures: LoadFigures) -> str:
    late = figures.late
    said = f"{figures.planned:,} planned"
    if late is not None:
        said += f"; sent {seconds(late.p50)} (median) to {seconds(late.p99)} (99 %) after they were due"
    if figures.held_back:
        said += f"; {figures.held_back:,} had to wait for a place: saturated"
    return said


def _percentiles(found: Percentiles | None, figures: LoadFigures) -> str:
    if found is None:
        return "unknown: the step was shorter than an answer takes" if figures.answered else "nothing was answered"
    named = [("p50", found.p50), ("p90", found.p90), ("p95", found.p95), ("p99", found.p99), ("longest", found.longest)]
    return ", ".join(f"{name} {seconds(figure)}" for name, figure in named)


def _throughput(figures: LoadFigures) -> str:
    said = f"{rate(figures.requests_per_second)} requests/s"
    if figures.items_per_second != figures.requests_per_second:
        said += f", {rate(figures.items_per_second)} items/s"
    tokens = [(figures.tokens_in_per_second, "in"), (figures.tokens_out_per_second, "out")]
    known = [f"{rate(figure)}/s {way}" for figure, way in tokens if figure is not None]
    return f"{said}; tokens {', '.join(known)}" if known else said


def _verdict(verdict: ObjectiveVerdict) -> str:
    objective = verdict.objective
    name = f"p{objective.percent:g}"
    reached = f"{name} is {seconds(verdict.reached)}" if verdict.reached is not None else f"{name} was never answered"
    met = "met" if verdict.met else "missed"
    return f"{objective} {met}: {verdict.part:.2f} % within {seconds(objective.seconds)}; {reached}"


def _client(client: Client) -> str:
    used = f"event loop {seconds(client.late)} late (99 %), {client.cpu:.2f} cores used"
    if client.limit is None:
        return f"{used}; not the limit"
    return f"the client was the limit: {client.limit}; {client.cpu:.2f} cores used"


def _server(server: ServerSide) -> str:
    parts = [f"{server.running:,} running" if server.running is not None else ""]
    parts.append(f"{server.waiting:,} waiting" if server.waiting is not None else "")
    parts.append(f"KV cache {server.kv_use:.0%} full" if server.kv_use is not None else "")
    said = ", ".join(filter(None, parts))
    evicted = f"; {count(server.preemptions, 'preemption')}" if server.preemptions is not None else ""
    return f"at most {said}{evicted}"


def _knee(test: LoadTest) -> str:
    knee = test.knee
    if knee is None:
        return "none: no step met every objective" if test.shown.verdicts else "none: nothing was answered"
    latency = test.shown.from_sending
    p95 = f", p95 {seconds(latency.p95)}" if latency is not None else ""
    return f"{knee.concurrency:,} in flight: {rate(knee.throughput)} items/s{p95}"


def _cost(test: LoadTest) -> str:
    awake = test.spent.seconds if test.spent is not None else 0.0
    if test.billed is not None:
        said = f"the provider bills {money(test.billed.dollars)} for {duration(test.billed.seconds)}"
    elif test.price_per_hour is None:
        return f"unknown, for {duration(awake)} awake: set price_per_hour= on the endpoint"
    else:
        said = f"{money(cost_of(awake, test.price_per_hour))} for {duration(awake)} awake"
    each, where = test.cost_per_1000, "at the knee" if test.knee is not None else "at this load"
    return said if each is None else f"{said}; {money(each)} per 1,000 items {where}"
