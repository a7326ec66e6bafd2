"""Rows that exist as Python objects, or that a function returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.domain.json_values import whole
from orchestrator.sources.columns import identified
from orchestrator.sources.read_once import EarlierReadings

if TYPE_CHECKING:
    from orchestrator.sources.arrow import ArrowStream

Rows: TypeAlias = "Iterable[Mapping[str, object]] | ArrowStream"

_REMEDY = "give a list, or a function that returns the rows anew each time"


@dataclass(frozen=True, slots=True, init=False)
class IterableSource:
    """Rows from an iterable that can be read again (a list, a dataset), or from a function that returns them anew.

    A table of pandas, polars, Arrow or DuckDB yields its rows, with values as in `ArrowSource`, but JSON stays text.

    An iterator is refused, because a second run would find it empty; so is one that a function returns again.
    """

    origin: Rows | Callable[[], Rows]
    id: str | None
    _earlier: EarlierReadings = field(repr=False, compare=False)

    def __init__(self, rows: Rows | Callable[[], Rows], id: str | None = None) -> None:  # noqa: A002 - as in every source
        if isinstance(rows, Iterator):
            raise UsageError(f"a {type(rows).__name__} can be read only once: {_REMEDY}")
        object.__setattr__(self, "origin", rows)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "_earlier", EarlierReadings())

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Start from the beginning and yield the rows in order."""
        rows = self.origin() if callable(self.origin) else self.origin
        if hasattr(rows, "__arrow_c_stream__"):
            arrow = import_module("orchestrator.sources.arrow")  # Arrow takes 0.1 s, for few jobs
            with arrow.table_rows(rows, self.id, decodes_json=False) as made:
                yield made
            return
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise UsageError(f"a {type(rows).__name__} cannot be read as rows: {_REMEDY}")
        found = self._earlier.check_new(iter(rows), _REMEDY)
        if hasattr(rows, "with_format"):  # a dataset may be made of a generator
            found = self._earlier.check_left(found, type(rows).__name__, _REMEDY)
        yield (self._row(number, row) for number, row in enumerate(found, 1))

    def _row(self, number: int, row: object) -> Row:
        if isinstance(row, Mapping):
            return identified({name: whole(value) for name, value in row.items()}, self.id, "row", number)
        return Row(
            {"row": number, "raw": repr(row)[:500]},
            unreadable=f"row {number} is a {type(row).__name__}, not a mapping of columns",
        )

    def sha256(self) -> None:
        """Return None, because only reading the rows can tell."""

    def describe(self) -> str:
        """Return the function's name or the iterable's type."""
        return f"rows of {getattr(self.origin, '__qualname__', type(self.origin).__name__)}"
