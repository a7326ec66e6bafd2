"""A connection to a ledger: statements are plain SQL with named parameters, and the columns of a row have names."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import aiosqlite

    from orchestrator.store.sqlite import DRIVER

    Values = Mapping[str, Any] | Sequence[Any]


class LedgerRow(tuple[Any, ...]):
    """A row whose columns are also attributes."""

    __slots__ = ()
    columns: tuple[str, ...]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def as_dict(self) -> dict[str, Any]:
        """Return the values by column."""
        return dict(zip(self.columns, self, strict=True))


@cache
def _row_type(columns: tuple[str, ...]) -> Callable[[tuple[Any, ...]], LedgerRow]:
    places = {column: property(itemgetter(place)) for place, column in enumerate(columns)}
    return cast("type[LedgerRow]", type("Row", (LedgerRow,), {"__slots__": (), **places, "columns": columns}))


class StatementResult:
    """All rows that a statement returned, and how many it changed."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[LedgerRow], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[LedgerRow]:
        return iter(self._rows)

    def all(self) -> list[LedgerRow]:
        """Return the rows."""
        return self._rows

    def first(self) -> LedgerRow | None:
        """Return the first row, if there is one."""
        return self._rows[0] if self._rows else None

    def one(self) -> LedgerRow:
        """Return the only row."""
        (row,) = self._rows
        return row

    def one_or_none(self) -> LedgerRow | None:
        """Return the only row; None if there is none."""
        return self.one() if self._rows else None

    def scalars(self) -> list[Any]:
        """Return the first column."""
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        """Return the first column of the only row."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """Return the first column of the only row; None if there is none."""
        return self.scalar_one() if self._rows else None


class BlockingConnection:
    """A connection for blocking calls. `begin` is what begins a transaction.

    `begin_at_once` does so without waiting; it returns False if that is not possible.
    """

    def __init__(
        self, driver: DRIVER.Connection, begin: Callable[[], object], begin_at_once: Callable[[], bool] = lambda: False
    ) -> None:
        self.driver = driver
        self.begin = begin
        self.begin_at_once = begin_at_once

    def execute(self, statement: str, values: Values = ()) -> StatementResult:
        """Execute a statement: once, or, with a list of values, for each of them."""
        if isinstance(values, list):
            return StatementResult([], self.driver.executemany(statement, values).rowcount)
        cursor = self.driver.execute(statement, values)
        row_type = _row_type(tuple(column[0] for column in cursor.description or ()))
        rows = [row_type(row) for row in cursor.fetchall()]  # all: a statement works until its last row is fetched
        return StatementResult(rows, cursor.rowcount)

    def end(self, *, commit: bool) -> None:
        """Commit the transaction, or roll it back. If the commit fails, it is rolled back."""
        try:
            if commit:
                self.driver.commit()
        finally:
            if self.driver.in_transaction:
                self.driver.rollback()

    @contextmanager
    def transaction(self) -> Iterator[BlockingConnection]:
        """One transaction: committed whole when the block ends, rolled back whole when it raises."""
        self.begin()
        done = False
        try:
            yield self
            done = True
        finally:
            self.end(commit=done)

    def close(self) -> None:
        """Close it. It cannot be used again."""
        self.driver.close()


class AsyncConnection:
    """The same for coroutines: aiosqlite makes each call in the thread of its connection."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def execute(self, statement: str, values: Values = ()) -> StatementResult:
        """Execute a statement as `BlockingConnection.execute` does."""
        if isinstance(values, list):
            return StatementResult([], (await self._connection.executemany(statement, values)).rowcount)
        cursor = await self._connection.execute(statement, cast("Any", values))
        row_type = _row_type(tuple(column[0] for column in cursor.description or ()))
        found: Any = await cursor.fetchall() if cursor.description else ()
        return StatementResult([row_type(row) for row in found], cursor.rowcount)
