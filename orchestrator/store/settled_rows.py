"""The settled rows of a run, for readers without an event loop: in input order, page by page, from the file itself."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson

from orchestrator.domain.errors import LedgerError, UsageError
from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.database import plain_words
from orchestrator.store.ledger_file import LedgerFile
from orchestrator.store.private import is_there
from orchestrator.store.sqlite import DRIVER
from orchestrator.store.views import PAGE_OF, ROWS_OF, as_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.store.views import ItemView

_BUSY = 30.0  # seconds for which a read waits; with a write-ahead log it never has to
_CHUNK_OF = {  # the counters of chunks agree with their results at every commit
    outcome: f"""SELECT lo, before FROM
    (SELECT lo, sum({outcome}) OVER (ORDER BY lo) - {outcome} AS before FROM chunk WHERE run_id = :run)
    WHERE before <= :number ORDER BY lo DESC LIMIT 1"""
    for outcome in ("completed", "discarded")
}
_SAME_RUN = "SELECT 1 FROM run WHERE id = :run AND created_at = coalesce(:created, created_at)"


class SettledRows:
    """The settled rows of one run. Writes nothing; between calls, no transaction is open."""

    def __init__(self, connection: DRIVER.Connection, ledger: Path, run_id: int) -> None:
        self._connection = connection
        self._ledger = ledger
        self._run_id = run_id

    @classmethod
    @contextmanager
    def open(cls, ledger: Path, run_id: int, created_at: float | None = None) -> Iterator[SettledRows]:
        """Open the ledger. `created_at`: of the run, which a ledger that was made anew may have under that number.

        Raises `LedgerError` if the ledger is gone or cannot be read, and `UsageError` if it no longer has the run.
        """
        if not is_there(ledger):
            gone = f"ledger {ledger} is gone, and the rows of run {run_id} with it"
            raise LedgerError(f"{gone}: restore it, or run the job again")
        with plain_words(ledger), LedgerFile.open(ledger), closing(_reader(ledger)) as connection:
            if connection.execute(_SAME_RUN, {"run": run_id, "created": created_at}).fetchone() is None:
                raise UsageError(f"ledger {ledger} no longer has run {run_id}: run the job again")
            yield cls(connection, ledger, run_id)

    def pages(self, outcome: str, begin: int = 0) -> Iterator[list[ItemView]]:
        """Yield the rows with this outcome, `completed` or `discarded`, in input order, from a position on.

        Keeps one page.
        """
        after = (self._run_id << POSITION_BITS | begin) - 1
        while page := self._read(PAGE_OF, after=after, outcome=outcome):
            yield page
            after = self._run_id << POSITION_BITS | page[-1].position

    def near(self, outcome: str, number: int) -> tuple[int, int]:
        """Return the position of the chunk that has this row of an outcome, and how many such rows are before it."""
        with plain_words(self._ledger):
            values = {"run": self._run_id, "number": number}
            found = self._connection.execute(_CHUNK_OF[outcome], values).fetchone()
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    def of(self, keys: Sequence[int]) -> list[ItemView]:
        """Return the rows of these items, as the ledger numbers them, in any order."""
        return self._read(ROWS_OF, keys=orjson.dumps(keys).decode())

    def _read(self, statement: str, **values: object) -> list[ItemView]:
        with plain_words(self._ledger):
            return [as_view(row) for row in self._connection.execute(statement, {"run": self._run_id, **values})]


def _reader(ledger: Path) -> DRIVER.Connection:
    connection = DRIVER.connect(
        f"file:{quote(str(ledger))}?mode=rw",  # `rw` never creates a file, and may use the write-ahead log
        uri=True,
        timeout=_BUSY,
        isolation_level=None,
        check_same_thread=False,  # one thread at a time, but not always the same one
    )
    connection.execute("PRAGMA query_only = ON")
    return connection
