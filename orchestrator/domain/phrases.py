"""Phrases: numbers as a person reads them."""

from __future__ import annotations

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
    if per_second >= 100:  # noqa: PLR2004 - from here on, decimals are noise
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"
