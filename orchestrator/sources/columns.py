"""The columns of a source: check their names and find the id."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXACT_AS_FLOAT = 2**53  # beyond, two whole numbers may have become one float


def check_header(source: str, names: Sequence[str], id_column: str | None, hint: str = "") -> None:
    """Refuse a header that names a column twice or lacks the id column; `hint` is added to the latter's message."""
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{source} names the column {min(twice)!r} twice: rename one")
    if id_column is not None and id_column not in names:
        raise UsageError(f"{source} has no column {id_column!r} for the id: choose one of {', '.join(names)}{hint}")


def identified(columns: Mapping[str, object], id_column: str | None, unit: str, number: int) -> Row:
    """Return the row with its id as text; it is unreadable if the id is missing or has no unambiguous text.

    `unit` and `number` say where the row is: line 7.
    """
    if id_column is None:
        return Row(columns)
    value = columns.get(id_column)
    if type(value) is str and value:
        return Row(columns, value)
    if (text := id_text(value)) is not None:
        return Row(columns, text, given_id=None if isinstance(value, str) else value)
    if id_column not in columns:
        why = f"has no column {id_column!r} for the id, only {', '.join(columns)}"
    elif value is None or isinstance(value, str):
        why = f"has no id in column {id_column!r}"
    else:
        kind = type(value).__name__
        why = f"has a {kind} in the id column {id_column!r}, which takes text, whole numbers, UUIDs, decimals and dates"
    return Row(columns, unreadable=f"{unit} {number} {why}", idless=True)


def id_text(value: object) -> str | None:
    """Return the text of a value that may be an id, or None if the value cannot be one.

    The number 1.0 is 1: pandas turns integers into floats if one of them is missing.
    """
    text: str | None = None
    match value:
        case str():
            text = str(value) or None
        case bool():
            pass
        case Integral():  # those of NumPy are, too
            text = str(int(value))
        case Real():
            number = float(value)
            text = str(int(number)) if number.is_integer() and abs(number) <= _EXACT_AS_FLOAT else None
        case Decimal():
            text = str(value) if value.is_finite() else None
        case date():  # and moments; what is not equal to itself is pandas' NaT
            text = value.isoformat() if value == value else None  # noqa: PLR0124
        case UUID():
            text = str(value)
        case _:
            pass
    return text
