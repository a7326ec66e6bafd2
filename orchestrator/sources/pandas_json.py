"""A table that is one JSON object, as pandas' `to_json` writes it unless it is told to write records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def rows_of(value: object) -> list[dict[str, object]] | None:
    """Return the rows of a table in any of pandas' orients that are objects, or None if the object is itself a row.

    An object whose values are all objects is a table by columns or by rows if the rows are named by numbers.
    """
    match value:
        case {"columns": list(names), "data": list(data), "index": list(), **rest} if rest.keys() <= _TIGHT:
            return [dict(zip(names, row, strict=True)) for row in data] if _fit(names, data) else None
        case {"schema": {"fields": list()}, "data": list(data), **rest} if not rest:
            return data if all(isinstance(row, dict) for row in data) else None
        case dict() if value and all(isinstance(inner, dict) for inner in value.values()):
            return _by_labels(value)
        case _:
            return None


_TIGHT = {"index_names", "column_names"}  # of orient="tight"


def _fit(names: list[Any], data: list[Any]) -> bool:
    texts = all(isinstance(name, str) for name in names)
    return texts and all(isinstance(row, list) and len(row) == len(names) for row in data)


def _by_labels(table: dict[str, dict[str, object]]) -> list[dict[str, object]] | None:
    """By rows, which is orient="index", or by columns, which is pandas' own default."""
    if _numbers(table):
        return list(table.values())
    first, *others = table.values()
    if not _numbers(first) or any(other.keys() != first.keys() for other in others):
        return None
    return [{name: column[label] for name, column in table.items()} for label in first]


def _numbers(labels: Iterable[str]) -> bool:
    """Whether there is at least one name and all are integers, as pandas names rows."""
    given = list(labels)
    return bool(given) and all(label.isdecimal() for label in given)
