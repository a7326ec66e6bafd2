"""What a person can read: numbers with units, and foreign text in which nothing acts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from re import Match

_MINUTE = 60


def duration(seconds: float) -> str:
    """A length of time in at most two units."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def money(dollars: float | None) -> str:
    """Dollars, to a tenth of a cent where it is little."""
    if dollars is None:
        return "price unknown"
    return f"${dollars:,.2f}" if dollars >= 1 or not dollars else f"${dollars:.4f}"


def count(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def rate(per_second: float) -> str:
    """As many digits as tell something: 0.042, 3.1, 812, 12,345."""
    if per_second >= 100:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


# C0, DEL, C1; marks that turn the direction of a line; separators of lines; halves of pairs, which no file takes
_ACTS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""The text on one line, in which nothing acts: it shows `\x1b` for ESC, `\n` for the end of a line."""
    return _ACTS.sub(_escaped, text)


def visible_json(text: str) -> str:
    """JSON that means the same, in which nothing acts. It may be indented."""
    return _ACTS.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _escaped(found: Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
