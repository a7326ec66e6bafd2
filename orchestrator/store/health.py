"""The health of a ledger, read without changing it: the file, its pages, its references, and unfinished business."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.store.migrate import HEAD
from orchestrator.store.processes import Process
from orchestrator.store.run_rows import IS_OWED
from orchestrator.store.sqlite import DRIVER, OCTETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INSTRUCTIONS = 100_000  # of SQLite's virtual machine between two looks at the clock
_SAMPLE = 1000  # answers whose size is looked at


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """An open awake window, and the living process that holds it for a run, if any.

    `kept_by`: who keeps it awake without a process, until `expires_at` if that is set.
    """

    endpoint: str
    owed: bool
    opened_at: float
    holder: Process | None
    run_id: int | None
    kept_by: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """What was found. `unsound`: what is wrong with its pages; `dangling`: references to missing rows.

    `looked_at_all`: whether there was time for every page and reference. `newest`: the latest past moment recorded.
    `due`: when the queued run that has waited longest became due. `failed`: the latest runs of jobs if they failed,
    and why. `untold`: runs whose hooks have not been called. `growth`: bytes that unsettled items will take, estimated
    from the answers so far.
    """

    revision: str | None
    journal_mode: str
    size: int
    log_size: int
    free: float  # part of the file
    unsound: tuple[str, ...] = ()
    dangling: int = 0
    looked_at_all: bool = True
    newest: float | None = None
    living: tuple[Process, ...] = ()
    serving: tuple[Process, ...] = ()
    windows: tuple[OpenWindow, ...] = ()
    held_runs: tuple[tuple[int, Process | None], ...] = ()
    due: float | None = None
    queued: int = 0
    failed: tuple[tuple[int, str, str | None], ...] = ()
    untold: tuple[int, ...] = ()
    broken: tuple[tuple[str, str], ...] = field(default=())
    growth: float = 0.0

    @property
    def current(self) -> bool:
        """Whether it has this program's schema."""
        return self.revision == HEAD


class Unreadable(Exception):
    """The ledger cannot be read; the message is SQLite's."""


def examine(ledger: Path, busy_timeout: float) -> LedgerHealth:
    """Examine a ledger; check its pages and references for at most `busy_timeout` seconds. Blocking.

    `Unreadable` if SQLite cannot read it. Nothing is created, upgraded or repaired.
    """
    try:
        with closing(_opened(ledger)) as connection:
            revision = _revision(connection)
            health = _file(ledger, connection) | {"revision": revision}
            health |= _soundness(connection, busy_timeout)
            if revision == HEAD and not health["unsound"]:
                health["unsound"] = _odd_tables(connection)
            if revision == HEAD and not health["unsound"]:
                health |= _contents(connection)
            return LedgerHealth(**health)
    except (DRIVER.Error, UnicodeDecodeError) as error:  # the second: a message of SQLite's that quotes garbage
        raise Unreadable(str(error)) from error


def is_damaged(ledger: Path, busy_timeout: float) -> bool:
    """Whether damaged pages or invalid JSON values may explain an unexpected failure. Blocking."""
    if not ledger.is_file():
        return False
    try:
        if examine(ledger, busy_timeout).unsound:
            return True
        with closing(_opened(ledger)) as connection, _limited(connection, busy_timeout):
            if _column(connection, "PRAGMA integrity_check(1)") != ["ok"]:  # indexes, too, unlike the quick one
                return True
            return any(_column(connection, f"SELECT 1 FROM {table} WHERE {what}") for table, what in _WRONG)
    except DRIVER.OperationalError as error:
        return "interrupted" not in str(error)
    except (Unreadable, DRIVER.Error, ArithmeticError, TypeError, ValueError):
        return True


def _opened(ledger: Path) -> Any:
    connection = DRIVER.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True, isolation_level=None, timeout=2.0)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _revision(connection: Any) -> str | None:
    if not _column(connection, "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"):
        return None
    revisions = _column(connection, "SELECT version_num FROM alembic_version")
    return str(revisions[0]) if revisions else None


def _file(ledger: Path, connection: Any) -> dict[str, Any]:
    (pages,), (free,), (mode,) = (
        _column(connection, f"PRAGMA {name}") for name in ("page_count", "freelist_count", "journal_mode")
    )
    log = ledger.with_name(f"{ledger.name}-wal")
    return {
        "journal_mode": mode,
        "size": ledger.stat().st_size,
        "log_size": log.stat().st_size if log.exists() else 0,
        "free": free / pages if pages else 0.0,
    }


def _soundness(connection: Any, busy_timeout: float) -> dict[str, Any]:
    soundness: dict[str, Any] = {}
    try:
        with _limited(connection, busy_timeout):
            problems = _column(connection, "PRAGMA quick_check(5)")
            soundness["unsound"] = () if problems == ["ok"] else tuple(map(str, problems))
            if not soundness["unsound"]:
                soundness["dangling"] = len(_column(connection, "PRAGMA foreign_key_check"))
    except DRIVER.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        soundness["looked_at_all"] = False
    return {"unsound": ()} | soundness


def _odd_tables(connection: Any) -> tuple[str, ...]:
    """Tables with wrong column names, which SQLite's own check accepts."""
    from orchestrator.store.tables import statements

    with closing(DRIVER.connect(":memory:")) as model:
        for statement in statements():
            model.execute(statement)
        tables = _column(model, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        columns = {table: _column(model, _COLUMNS, table) for table in tables}
    return tuple(
        f"the columns of table {table} are not those of a ledger"
        for table, names in columns.items()
        if set(_column(connection, _COLUMNS, table)) != set(names)
    )


@contextmanager
def _limited(connection: Any, seconds: float) -> Iterator[None]:
    """Interrupt statements after `seconds`."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


_JSON = {
    "run": ("spec", "plan", "notification"),
    "schedule": ("about", "endpoints", "after"),
    "awake_window": ("pause_with",),
    "member": ("kept",),
    "item": ("request",),
    "result": ("output", "answer"),
}
_WRONG = [("result", "outcome NOT IN ('completed', 'discarded') LIMIT 1")]  # which SQLite's own check passes over
_WRONG += [
    (table, f"NOT ({' AND '.join(f'coalesce(json_valid({column}), 1)' for column in columns)}) LIMIT 1")
    for table, columns in _JSON.items()
]
_COLUMNS = "SELECT name FROM pragma_table_info(?)"
_LIVING = "SELECT id, host, pid, pid_started, lease_until FROM process WHERE state = 'live'"
_NEWEST = """
SELECT max(at) FROM (
    SELECT max(created_at, coalesce(started_at, 0), coalesce(finished_at, 0)) AS at FROM run
    WHERE id = (SELECT max(id) FROM run)
    UNION ALL SELECT started_at FROM process WHERE id = (SELECT max(id) FROM process)
    UNION ALL SELECT opened_at FROM awake_window WHERE id = (SELECT max(id) FROM awake_window)
    UNION ALL SELECT finished_at FROM result WHERE item_key = (SELECT max(item_key) FROM result))
"""
_WINDOWS = """
SELECT w.endpoint, w.owed, w.opened_at, h.process_id, h.run_id, h.kept_by, h.expires_at
FROM awake_window w INDEXED BY ux_awake_window_endpoint
LEFT JOIN hold h ON h.window_id = w.id AND h.until IS NULL WHERE w.state <> 'closed'
"""
_HELD = "SELECT id, holder FROM run WHERE holder IS NOT NULL AND finished_at IS NULL"
_QUEUED = """
SELECT count(*), min(due_at) FROM run INDEXED BY ix_run_queued
WHERE due_at IS NOT NULL AND holder IS NULL AND held = 0 AND finished_at IS NULL
"""
_FAILED = """
SELECT r.id, j.name, r.error FROM run r JOIN job j ON j.id = r.job_id
WHERE r.state = 'failed' AND r.holder IS NULL AND r.due_at IS NULL
AND r.id = (SELECT max(o.id) FROM run o WHERE o.job_id = r.job_id) ORDER BY r.id
"""
_UNTOLD = f"SELECT r.id FROM run r WHERE {IS_OWED} ORDER BY r.id"
_BROKEN = """
SELECT path, error FROM broken_file
UNION ALL SELECT 'schedule of job ' || job, 'fires no more' FROM schedule
WHERE next_slot IS NULL AND paused = 0 AND gone = 0
"""
_LEFT = """
SELECT coalesce(sum(c.hi - c.lo - c.completed - c.discarded), 0) FROM run r JOIN chunk c ON c.run_id = r.id
WHERE r.finished_at IS NULL AND c.state <> 'done'
"""
_BYTES_PER_ANSWER = f"""
SELECT avg(coalesce({OCTETS}(output), 0) + coalesce({OCTETS}(answer), 0))
FROM (SELECT output, answer FROM result ORDER BY item_key DESC LIMIT {_SAMPLE})
"""


def _contents(connection: Any) -> dict[str, Any]:
    """What the rows say about processes, runs and windows."""
    living = {row[0]: Process(*row) for row in connection.execute(_LIVING)}
    serving = set(_column(connection, "SELECT id FROM process WHERE state = 'live' AND serves = 1"))
    queued, due = connection.execute(_QUEUED).fetchone()
    (left,), (each,) = _column(connection, _LEFT), _column(connection, _BYTES_PER_ANSWER)
    return {
        "newest": _column(connection, _NEWEST)[0],
        "living": tuple(living.values()),
        "serving": tuple(process for number, process in living.items() if number in serving),
        "windows": tuple(
            OpenWindow(endpoint, bool(owed), opened_at, living.get(holder), run_id, kept_by, expires_at)
            for endpoint, owed, opened_at, holder, run_id, kept_by, expires_at in connection.execute(_WINDOWS)
        ),
        "held_runs": tuple((run_id, living.get(holder)) for run_id, holder in connection.execute(_HELD)),
        "queued": queued,
        "due": due,
        "failed": tuple(connection.execute(_FAILED)),
        "untold": tuple(_column(connection, _UNTOLD)),
        "broken": tuple(connection.execute(_BROKEN)),
        "growth": left * (each or 0.0),
    }


def _column(connection: Any, sql: str, *values: object) -> list[Any]:
    return [row[0] for row in connection.execute(sql, values)]
