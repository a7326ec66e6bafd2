"""Charts of the report: inline SVG, coloured by the page's style sheet, with a tooltip for each value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.report_words import short_clock
from orchestrator.report.axes import moments, numbers
from orchestrator.report.markup import Markup, joined, scrolling, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from orchestrator.domain.readings import Span

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 26
_LABEL = 190  # of a bar in a timeline


@dataclass(frozen=True, slots=True)
class Frame:
    """The period that a chart shows, and the time zone of its clock."""

    since: float
    until: float
    zone: tzinfo | None

    def x(self, at: float, left: float = _LEFT, right: float = WIDTH - _RIGHT) -> float:
        """Return the x coordinate of a moment."""
        part = (at - self.since) / (self.until - self.since) if self.until > self.since else 0.5
        return left + min(1.0, max(0.0, part)) * (right - left)


def course_chart(
    spans: Sequence[Span],
    frame: Frame,
    value: Callable[[Span], float | None],
    says: Callable[[float], str],
    kind: str,
    label: str,
) -> Markup:
    """Draw one figure over time: an area with a line on top, interrupted while nothing was asked."""
    height, bottom = 150, 150 - _BOTTOM
    known = [(span, figure) for span in spans if (figure := value(span)) is not None]
    ticks = numbers(max((figure for _, figure in known), default=0.0))
    top = ticks[-1].value

    def y(figure: float) -> float:
        return bottom - figure / top * (bottom - _TOP)

    parts = [
        joined(
            tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(tick.value), y2=y(tick.value), class_="grid"),
            tag("text", tick.label, x=_LEFT - 8, y=y(tick.value) + 4, class_="tick end"),
        )
        for tick in ticks
    ]
    parts.append(_clock(frame, bottom, height))
    for stretch in _stretches(known):
        points = [(frame.x((span.since + span.until) / 2), y(figure)) for span, figure in stretch]
        points = [(frame.x(stretch[0][0].since), points[0][1]), *points, (frame.x(stretch[-1][0].until), points[-1][1])]
        line = " L".join(f"{x:.1f} {height_:.1f}" for x, height_ in points)
        parts.append(
            tag(
                "path", d=f"M{points[0][0]:.1f} {bottom} L{line} L{points[-1][0]:.1f} {bottom} Z", class_=f"area {kind}"
            )
        )
        parts.append(tag("path", d=f"M{line}", class_=f"line {kind}"))
    for span, figure in known:
        x, until = frame.x(span.since), frame.x(span.until)
        said = f"{says(figure)}\n{_from_to(span, frame)}"
        width = max(0.5, until - x)
        parts.append(tag("rect", tag("title", said), x=x, y=_TOP, width=width, height=bottom - _TOP, class_="hit"))
    return _svg(height, parts, label)


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points. `kind`: its colour, a class of the style sheet; `says`: words for a point's tooltip."""

    kind: str
    points: Sequence[tuple[float, float]]
    says: Callable[[float, float], str]


def line_chart(lines: Sequence[Line], unit: str, label: str, marked: float | None = None) -> Markup:
    """Draw figures over a number that is no time of day, in one frame. `unit`: of that number.

    `marked`: where a vertical line is drawn.
    """
    height, bottom = 170, 170 - _BOTTOM - 10
    points = [point for line in lines for point in line.points]
    across = numbers(max((x for x, _ in points), default=0.0), 8)
    ticks = numbers(max((figure for _, figure in points), default=0.0))
    frame, top = Frame(0.0, across[-1].value, None), ticks[-1].value
    parts = [
        joined(
            tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=(y := _at(tick.value, top, bottom)), y2=y, class_="grid"),
            tag("text", tick.label, x=_LEFT - 8, y=y + 4, class_="tick end"),
        )
        for tick in ticks
    ]
    parts += [tag("text", tick.label, x=frame.x(tick.value), y=bottom + 16, class_="tick middle") for tick in across]
    parts.append(tag("text", unit, x=WIDTH / 2, y=height - 4, class_="tick middle"))
    if marked is not None:
        x = frame.x(marked)
        parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid marked"))
    for line in lines:
        path = " L".join(f"{frame.x(x):.1f} {_at(figure, top, bottom):.1f}" for x, figure in line.points)
        parts.append(tag("path", d=f"M{path}", class_=f"line {line.kind}") if line.points else Markup(""))
        for x, figure in line.points:
            title = tag("title", line.says(x, figure))
            parts.append(
                tag("circle", title, cx=frame.x(x), cy=_at(figure, top, bottom), r=4.0, class_=f"dot {line.kind}")
            )
    return _svg(height, parts, label)


def spark(values: Sequence[float], says: str) -> Markup:
    """Draw a line without axes, for a row of a table."""
    width, height = 120, 24
    if len(values) < 2 or not max(values):
        return Markup("")
    step, top = width / (len(values) - 1), max(values)
    line = " L".join(f"{i * step:.1f} {height - 1 - value / top * (height - 3):.1f}" for i, value in enumerate(values))
    return tag(
        "svg",
        tag("title", says),
        tag("path", d=f"M0 {height} L{line} L{width} {height} Z", class_="area items"),
        tag("path", d=f"M{line}", class_="line items"),
        class_="spark",
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in a row of a timeline."""

    since: float
    until: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class ChartRow:
    """A row of a timeline."""

    label: str
    bars: Sequence[Bar]


def timeline(rows: Sequence[ChartRow], frame: Frame) -> Markup:
    """Draw what happened when: one row for each endpoint and each run."""
    pitch, left = 24, _LABEL
    bottom = _TOP + pitch * len(rows)
    parts = [_clock(frame, bottom, bottom + _BOTTOM, left=left, top=_TOP)]
    for number, row in enumerate(rows):
        y = _TOP + number * pitch
        parts.append(tag("text", tag("title", row.label), _short(row.label), x=left - 10, y=y + 16, class_="label end"))
        for bar in row.bars:
            x, until = frame.x(bar.since, left), frame.x(bar.until, left)
            parts.append(
                tag(
                    "rect",
                    tag("title", bar.says),
                    x=x,
                    y=y + 4,
                    width=max(3.0 if bar.kind == "trouble" else 1.5, until - x),
                    height=pitch - 8,
                    rx=2,
                    class_=f"bar {bar.kind}",
                )
            )
    return _svg(bottom + _BOTTOM, parts, f"Time line of {', '.join(row.label for row in rows)}")


def columns(days: Sequence[tuple[str, float, str]], unit: str) -> Markup:
    """Draw a column for each day, given its label, its figure and its tooltip."""
    height, bottom = 170, 170 - _BOTTOM
    ticks = numbers(max((figure for _, figure, _ in days), default=0.0), 3)
    top = ticks[-1].value
    pitch = (WIDTH - _LEFT - _RIGHT) / max(1, len(days))
    parts = [
        joined(
            tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=(y := _at(tick.value, top, bottom)), y2=y, class_="grid"),
            tag("text", f"{unit}{tick.label}", x=_LEFT - 8, y=y + 4, class_="tick end"),
        )
        for tick in ticks
    ]
    for number, (label, figure, said) in enumerate(days):
        x, y = _LEFT + number * pitch + pitch * 0.2, _at(figure, top, bottom)
        parts.append(
            tag("rect", tag("title", said), x=x, y=y, width=pitch * 0.6, height=bottom - y, rx=2, class_="bar cost")
        )
        parts.append(tag("text", label, x=x + pitch * 0.3, y=height - 8, class_="tick middle"))
    return _svg(height, parts, "Figures by day")


def stack(pieces: Sequence[tuple[str, float, str]]) -> Markup:
    """Draw one bar of several pieces, given the kind, length and tooltip of each."""
    whole, x, height = sum(length for _, length, _ in pieces) or 1.0, 0.0, 18
    parts = []
    for kind, length, said in pieces:
        width = length / whole * WIDTH
        parts.append(tag("rect", tag("title", said), x=x, y=0, width=width, height=height, class_=f"bar {kind}"))
        x += width
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        class_="stack",
        role="img",
        preserveAspectRatio="none",
        aria_label=", ".join(said for _, _, said in pieces),
    )


def _at(figure: float, top: float, bottom: float) -> float:
    return bottom - figure / top * (bottom - _TOP)


def _clock(frame: Frame, bottom: float, height: float, left: float = _LEFT, top: float | None = None) -> Markup:
    """Draw the time axis; with `top`, also lines through the chart."""
    parts = []
    for tick in moments(frame.since, frame.until, frame.zone):
        x = frame.x(tick.value, left)
        parts.append(tag("line", x1=x, x2=x, y1=bottom if top is None else top, y2=bottom + 4, class_="grid"))
        if left <= x < WIDTH - _RIGHT - 16:
            parts.append(tag("text", tick.label, x=x, y=height - 8, class_="tick middle"))
    return joined(*parts)


def _stretches(known: Sequence[tuple[Span, float]]) -> list[list[tuple[Span, float]]]:
    found: list[list[tuple[Span, float]]] = []
    for span, figure in known:
        if not found or span.since > found[-1][-1][0].until:
            found.append([])
        found[-1].append((span, figure))
    return found


def _from_to(span: Span, frame: Frame) -> str:
    return f"{short_clock(span.since, frame.zone)} to {short_clock(span.until, frame.zone)}"


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(height: float, parts: Sequence[str], label: str) -> Markup:
    chart = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", class_="chart", role="img", aria_label=label)
    return scrolling(label, chart)
