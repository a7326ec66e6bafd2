"""Placeholders in the path of an output: `{run}`, `{date}` and `{job}`, filled in for each run."""

from __future__ import annotations

from datetime import UTC, datetime
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KNOWN = ("run", "date", "job")


def placeholders_in(path: str) -> frozenset[str]:
    """Return the placeholders in a path; `{{` and `}}` are literal braces.

    Raises a one-line `ValueError` for unknown placeholders.
    """
    try:
        parts = list(Formatter().parse(path))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).lower()}; write a literal brace twice") from error
    names = [
        name + ("!" if conversion else "") + (":" if form else "")
        for _, name, form, conversion in parts
        if name is not None
    ]
    if unknown := [name for name in names if name not in KNOWN]:
        known = ", ".join(f"{{{name}}}" for name in KNOWN)
        raise ValueError(f"{path}: {{{unknown[0]}}} is unknown; use one of {known}; write a literal brace twice")
    return frozenset(names)


def filled(path: str, names: Mapping[str, str]) -> str:
    """Return the path with its placeholders filled in."""
    placeholders_in(path)
    return path.format_map(names)


def escaped(path: str) -> str:
    """Return the path with its braces doubled, so that they are taken literally."""
    return path.replace("{", "{{").replace("}", "}}")


def names_of(run: int, job: str, created_at: float) -> Mapping[str, str]:
    """Return the values of the placeholders: the run's number, the UTC day of its creation and the name of its job."""
    return {"run": str(run), "date": f"{datetime.fromtimestamp(created_at, UTC):%Y-%m-%d}", "job": job}
