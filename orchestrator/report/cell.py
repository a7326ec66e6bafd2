"""What a notebook cell shows: a run's progress, updated in place, and its result as a table."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.domain.events import Phase
from orchestrator.domain.phrases import duration, money
from orchestrator.report.markup import Markup, tag
from orchestrator.report.progress import EVERY_LOOK, progress_line, show_only_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.run import Cause, Counts
    from orchestrator.domain.worker import Vitals
    from orchestrator.engine.progress import Progress
    from orchestrator.report.progress import Show

_LONGEST = 300  # characters of a value


def usual_display() -> Show | None:
    """Return how a program shows progress unless told otherwise: in its notebook, or its terminal; else not at all."""
    if _in_notebook():
        return _show_in_cell
    return show_only_bar if sys.stderr.isatty() else None


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, which has imported IPython already."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


async def _show_in_cell(progress: Progress, workers: Sequence[Vitals]) -> None:
    """Show progress below the cell that the calling context belongs to. What is shown last stays there."""
    from IPython.display import display

    shown = _bundle(progress, workers)
    handle: Any = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    try:
        while True:
            await anyio.sleep(EVERY_LOOK)
            if (now := _bundle(progress, workers)) != shown:
                handle.update(now, raw=True)
                shown = now
    finally:
        handle.update(_bundle(progress, ()), raw=True)


def _bundle(progress: Progress, workers: Sequence[Vitals]) -> dict[str, str]:
    line = progress_line(progress, workers)
    done, total = (1, 1) if progress.phase is Phase.DONE else (progress.settled, progress.total)
    value = done if total else None  # without one, the browser shows that something happens
    bar = tag("progress", value=value, max=total or None, style="vertical-align: middle; width: 16em")
    return {"text/html": tag("div", bar, Markup("&ensp;"), line), "text/plain": line}


def result_html(
    title: str, counts: Counts, awake: float, cost: float | None, causes: Sequence[Cause], rows: Markup
) -> Markup:
    """Return the result of a run as HTML, with the first of its rows. Everything that came from outside is escaped."""
    failed = [
        {
            "items": f"{cause.items:,}",
            "cause": f"{cause.kind} {cause.status or ''}".rstrip(),
            "message": cause.message,
            "for example": cause.sample,
        }
        for cause in causes
    ]
    return tag("div", tag("p", tag("b", title), f": {counts}; {spent(awake, cost)}"), _table(failed), rows)


def spent(awake: float, cost: float | None) -> str:
    """Return for example `awake 34.9 s, $0.0078`."""
    return f"awake {duration(awake)}, {'cost unknown' if cost is None else money(cost)}"


def rows_html(first: Sequence[Mapping[str, object]], length: int) -> Markup:
    """Return the first of `length` rows as HTML, in which everything is escaped."""
    if not length:
        return tag("p", "no rows")
    more = [tag("p", f"and {length - len(first):,} more")] if length > len(first) else []
    return tag("div", _table(first), *more)


def _table(rows: Sequence[Mapping[str, object]]) -> Markup:
    if not rows:
        return Markup("")
    names = list(dict.fromkeys(name for row in rows for name in row))
    left = "text-align: left; vertical-align: top"
    head = tag("tr", *(tag("th", name, style=left) for name in names))
    body = [tag("tr", *(tag("td", _text(row.get(name)), style=left) for name in names)) for row in rows]
    return tag("table", tag("thead", head), tag("tbody", *body))


def _text(value: object) -> str:
    """Return a text as it is and any other value as JSON, cut if it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
