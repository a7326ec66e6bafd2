"""Placeholders in the path of an output: `{run}`, `{date}` and `{job}`, filled in for each run."""

from __future__ import annotations

from datetime import UTC, datetime
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = ("run", "date", "job")


def placeholders_in(path: str) -> frozenset[str]:
    """Which there are; `{{` and `}}` are braces. `ValueError` in one line for any that nobody fills in."""
    try:
        parts = list(Formatter().parse(path))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).lower()}; a brace itself is written twice") from error
    found = [
        name + ("!" if conversion else "") + (":" if form else "")
        for _, name, form, conversion in parts
        if name is not None
    ]
    if unknown := [name for name in found if name not in KNOWN]:
        known = ", ".join(f"{{{name}}}" for name in KNOWN)
        raise ValueError(f"{path}: there is no {{{unknown[0]}}}; there is {known}; a brace itself is written twice")
    return frozenset(found)


def filled(path: str, names: Mapping[str, str]) -> str:
    """The path with its placeholders filled in."""
    placeholders_in(path)
    return path.format_map(names)


def escaped(path: str) -> str:
    """The path as a text whose braces are braces."""
    return path.replace("{", "{{").replace("}", "}}")


def names_of(run: int, job: str, created_at: float) -> Mapping[str, str]:
    """What the placeholders stand for: the run's number, the day on which it was made (of UTC), and its job's name."""
    return {"run": str(run), "date": f"{datetime.fromtimestamp(created_at, UTC):%Y-%m-%d}", "job": job}
