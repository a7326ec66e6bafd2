"""Which texts have come by so far: finds duplicates in any number of rows with little memory."""

from __future__ import annotations

import tempfile
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.store.sqlite import DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COUNT = """
INSERT INTO seen (text, first, times, latest)
SELECT value, :position + key, 1, :position + key FROM json_each(:texts) WHERE true
ON CONFLICT (text) DO UPDATE SET times = times + 1, latest = excluded.latest
RETURNING latest, first, times
"""
_TABLE = """
CREATE TABLE seen (text TEXT PRIMARY KEY, first INTEGER, times INTEGER, latest INTEGER) STRICT, WITHOUT ROWID
"""


class Seen:
    """Counts texts in a private temporary database. Blocking: for worker threads.

    The database is a named file, because a nameless one of SQLite may stay in memory however large it becomes.
    """

    def __init__(self, connection: DRIVER.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Seen]:
        """Start with nothing seen; nothing is left when the block ends."""
        with in_temporary_files():
            file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed below
        with file, closing(_connected(file.name)) as connection:
            yield cls(connection)

    def count(self, texts: Sequence[str], position: int) -> list[tuple[int, int]]:
        """Per text, standing at `position` and on: where it was first seen, and how often it has been seen by now."""
        values = {"texts": orjson.dumps(texts).decode(), "position": position}
        with in_temporary_files():
            rows = self._connection.execute(_COUNT, values).fetchall()
        return [(first, times) for _, first, times in sorted(rows)]


@contextmanager
def in_temporary_files() -> Iterator[None]:
    """Translate errors in making and writing temporary files."""
    try:
        yield
    except (OSError, DRIVER.OperationalError) as failure:
        where = tempfile.tempdir or "any folder"
        why = (failure.strerror if isinstance(failure, OSError) else None) or failure
        raise UsageError(
            f"temporary files cannot be written to {where} ({why}): set TMPDIR to a folder with space and run again"
        ) from failure


def _connected(path: str) -> DRIVER.Connection:
    connection = DRIVER.connect(path, isolation_level=None, check_same_thread=False)
    with in_temporary_files():
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute(_TABLE)
        connection.execute("BEGIN")  # for ever: one transaction is faster, and nothing here needs to last
    return connection
