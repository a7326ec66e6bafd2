"""Text for people: numbers with units, and foreign text with control characters escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from re import Match

EVENTS = "orchestrator.events"  # the logger that gets the events of runs, in words
_MINUTE = 60


def duration(seconds: float) -> str:
    """Format a duration in at most two units."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def money(dollars: float | None) -> str:
    """Format dollars, with four decimals for amounts below one dollar."""
    if dollars is None:
        return "price unknown"
    return f"${dollars:,.2f}" if dollars >= 1 or not dollars else f"${dollars:.4f}"


def count(number: int, noun: str) -> str:
    """Return `1 run`, `2 runs` and so on."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rate(per_second: float) -> str:
    """Format a rate with a sensible number of digits: 0.042, 3.1, 812, 12,345."""
    if per_second >= 100:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


def megabytes(number: int) -> str:
    """Return a number of bytes in words, in megabytes."""
    return f"{number / 1e6:,.1f} MB"


def size(number: int) -> str:
    """Return a number of bytes in words."""
    if number < 1000:
        return count(number, "byte")
    return f"{number / 1e3:,.1f} kB" if number < 1e6 else megabytes(number)


# C0, DEL, C1, marks that change text direction, line separators, and lone surrogates, which cannot be written to a file
_ACTS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Return the text on one line with control characters escaped: `\x1b` for ESC, `\n` for a line end."""
    return _ACTS.sub(_escaped, text)


def visible_json(text: str) -> str:
    """Return equivalent JSON with control characters escaped, except the line ends of indentation."""
    return _ACTS.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def _escaped(match: Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
