"""The settled rows of a run, for readers without an event loop: in input order, page by page, from the file itself."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.domain.errors import LedgerError, UsageError
from orchestrator.store.database import plain_words
from orchestrator.store.ledger_file import LedgerFile
from orchestrator.store.private import is_there
from orchestrator.store.sqlite import DRIVER
from orchestrator.store.tables import POSITION_BITS
from orchestrator.store.views import PAGE_OF, as_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.domain.run import Run
    from orchestrator.store.views import ItemView

_BUSY = 30.0  # seconds for which a read waits; with a write-ahead log it never has to
_SAME_RUN = "SELECT 1 FROM run r JOIN job j ON j.id = r.job_id WHERE r.id = ? AND j.name = ? AND r.created_at = ?"


def settled_pages(ledger: Path, run: Run, outcome: str) -> Iterator[list[ItemView]]:
    """Yield the rows of a run with this outcome, `completed` or `discarded`. Writes nothing, and keeps one page.

    The file is open, and no transaction is, while the caller uses a page. Raises `LedgerError` if the ledger is gone or
    cannot be read, and `UsageError` if it no longer has the run.
    """
    if not is_there(ledger):
        raise LedgerError(f"ledger {ledger} is gone, and the rows of run {run.id} with it: restore it, or run again")
    with plain_words(ledger), LedgerFile.open(ledger), closing(_reader(ledger)) as connection:
        if connection.execute(_SAME_RUN, (run.id, run.job, run.created_at)).fetchone() is None:
            raise UsageError(f"ledger {ledger} no longer has run {run.id} of {run.job}: run the job again")
        after = (run.id << POSITION_BITS) - 1
        while True:
            values = {"run": run.id, "after": after, "outcome": outcome}
            page = [as_view(row) for row in connection.execute(PAGE_OF, values).fetchall()]
            if not page:
                return
            yield page
            after = run.id << POSITION_BITS | page[-1].position


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
