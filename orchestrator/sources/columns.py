"""The columns of a source: which there are, and which of them is the id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def check_header(source: str, names: Sequence[str], id_column: str | None) -> None:
    """Refuse a header that names a column twice or lacks the id column."""
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{source} names the column {min(twice)!r} twice: rename one")
    if id_column is not None and id_column not in names:
        raise UsageError(f"{source} has no column {id_column!r} for the id: choose one of {', '.join(names)}")


def identified(columns: Mapping[str, object], id_column: str | None, unit: str, number: int) -> Row:
    """Return the row with its id as text; unreadable where the id is missing, empty, or not text or a whole number.

    `unit` and `number` say where the row stands: line 7.
    """
    if id_column is None:
        return Row(columns)
    value = columns.get(id_column)
    if isinstance(value, str) and value:
        return Row(columns, str(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Row(columns, str(value))
    if id_column not in columns:
        known = ", ".join(columns)
        reason = f"{unit} {number} has no column {id_column!r} for the id, only {known}"
        return Row(columns, unreadable=reason, idless=True)
    if value is None or value == "":
        return Row(columns, unreadable=f"{unit} {number} has no id in column {id_column!r}")
    kind = type(value).__name__
    return Row(
        columns,
        unreadable=f"{unit} {number} has a {kind} in the id column {id_column!r}, which takes text or a whole number",
    )
