"""Which SQLite library the ledger uses, and whether that one may write ahead.

Libraries from 3.7.0 to 3.51.2 carry the "WAL-reset" corruption bug (sqlite.org/wal.html, "The WAL-Reset Bug"; fixed
in 3.51.3, and in 3.50.7 and 3.44.6 of the older series). Two writing processes can lose committed pages with it, so
it decides which library is used, and whether the ledger may use a write-ahead log at all.

We use the standard library's SQLite if it is sound, else the one in the `pysqlite3` wheel; if neither is, the ledger
uses a rollback journal. Every run says which.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

_FIXED: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite version is free of the WAL-reset bug."""
    if version < (3, 7, 0) or version >= _FIXED[0]:
        return True
    return any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED)


def _best_driver() -> ModuleType:
    """The standard library's where it is sound, else the wheel that carries its own SQLite."""
    if wal_is_safe(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2 if wal_is_safe(dbapi2.sqlite_version_info) else sqlite3


DRIVER: Final[Any] = _best_driver()
WAL: Final = wal_is_safe(DRIVER.sqlite_version_info)
# the bytes of a text, known without reading all of it; older libraries have to read it
OCTETS: Final = "octet_length" if DRIVER.sqlite_version_info >= (3, 43, 0) else "length"


def total(column: str) -> str:
    """SQL for a sum of whole numbers that may be absurd: NULL where all are NULL, at most 2**63 - 1, never an error."""
    return f"CAST(sum(1.0 * {column}) AS INTEGER)"


def describe() -> str:
    """One phrase for the start-up line: version, where it comes from, journal mode."""
    origin = "standard library" if DRIVER is sqlite3 else "pysqlite3"
    mode = "write-ahead log" if WAL else "safe mode: rollback journal, because this version can corrupt a WAL"
    return f"SQLite {DRIVER.sqlite_version} ({origin}, {mode})"
