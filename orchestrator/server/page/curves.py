"""Curves of a run: the figures that the script draws, each with the words for those who do not see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.phrases import rate
from orchestrator.report.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.domain.readings import Span


def throughput(spans: Sequence[Span]) -> Markup:
    """Return the curve of items per second."""
    return _curve(spans, "Throughput", "items", "items/s", lambda span: span.items_per_second)


def curves(spans: Sequence[Span]) -> Markup:
    """Return all curves for which there are readings."""
    drawn = [
        throughput(spans),
        _curve(spans, "Requests in flight", "flight", "in flight", lambda span: span.in_flight),
        _curve(spans, "Latency (median)", "latency", "s", lambda span: span.latency),
    ]
    if any(span.tokens for span in spans):
        drawn.append(_curve(spans, "Tokens", "tokens", "tokens/s", lambda span: span.tokens_per_second))
    return tag("div", *drawn, class_="curves")


def _curve(spans: Sequence[Span], title: str, kind: str, unit: str, value: Callable[[Span], float | None]) -> Markup:
    """Return one curve. Each figure belongs to the end of its span; a gap between two spans interrupts the curve."""
    at: list[float] = []
    figures: list[float | None] = []
    for before, span in zip([None, *spans], spans, strict=False):
        if before is not None and span.since > before.until:
            at.append(before.until + 0.001)
            figures.append(None)
        at.append(span.until)
        figures.append(None if (figure := value(span)) is None else round(figure, 4))
    known = [figure for figure in figures if figure is not None]
    now = f"{rate(known[-1])} {unit}" if known else "no figures yet"
    words = f"{title}: now {now}, at most {rate(max(known))} {unit}" if known else f"{title}: {now}"
    shown = {"at": at, "figures": figures, "now": now, "unit": unit, "kind": kind}
    return tag(
        "figure",
        tag("figcaption", title, tag("output", now)),
        tag("div", class_="curve", role="img", aria_label=words, data_curve=orjson.dumps(shown).decode()),
    )
