"""Transitions of lasting holds: a command, or a job that never pauses, keeps an endpoint awake without a process.

Such a hold ends when it expires, when a command pauses the endpoint, or when a process finds the endpoint asleep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.report_data import FOUND_ASLEEP
from orchestrator.domain.terms import LastingHold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.store.connection import AsyncConnection
    from orchestrator.store.database import Database

STANDS = "(h.kept_by IS NOT NULL AND (h.expires_at IS NULL OR h.expires_at > :now))"
END_LASTING = "UPDATE hold SET until = :now WHERE window_id = :window AND until IS NULL AND kept_by IS NOT NULL"
# A job that never pauses what it resumes keeps it awake.
KEEP = """
INSERT INTO hold (window_id, process_id, job, since, kept_by)
SELECT h.window_id, h.process_id, h.job, :now, 'job ' || h.job FROM hold h
WHERE h.window_id = :window AND h.process_id = :process AND h.until IS NULL AND h.job IS NOT NULL AND h.kept_by IS NULL
AND NOT EXISTS (SELECT 1 FROM hold x WHERE x.window_id = :window AND x.until IS NULL AND x.kept_by IS NOT NULL)
LIMIT 1
"""
_NO_PROCESS = """
NOT EXISTS (SELECT 1 FROM hold x JOIN process p ON p.id = x.process_id
            WHERE x.window_id = w.id AND x.until IS NULL AND x.kept_by IS NULL AND p.state = 'live')
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A window that only a lasting hold keeps open."""

    window_id: int
    endpoint: str
    pause_with: Mapping[str, object]


class LastingHolds:
    """The ways a lasting hold ends. `Windows` creates them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unattended(self, asked_before: float) -> list[Kept]:
        """Windows that only lasting holds keep open, and that no process has asked to resume since that moment."""
        statement = f"""
            SELECT w.id, w.endpoint, w.pause_with FROM awake_window w INDEXED BY ux_awake_window_endpoint
            WHERE w.state <> 'closed' AND coalesce(w.asked_at, w.opened_at) <= :before AND {_NO_PROCESS}
            AND EXISTS (SELECT 1 FROM hold h WHERE h.window_id = w.id AND h.until IS NULL AND {STANDS}) ORDER BY w.id
        """
        async with self._database.read() as connection:
            rows = await connection.execute(statement, {"before": asked_before, "now": time.time()})
            return [Kept(row.id, row.endpoint, orjson.loads(row.pause_with)) for row in rows]

    async def of(self, endpoint: str) -> LastingHold | None:
        """The lasting hold on an endpoint, if there is one."""
        statement = f"""
            SELECT h.kept_by, h.expires_at FROM awake_window w JOIN hold h ON h.window_id = w.id
            WHERE w.endpoint = :endpoint AND w.state <> 'closed' AND h.until IS NULL AND {STANDS}
        """
        async with self._database.read() as connection:
            row = (await connection.execute(statement, {"endpoint": endpoint, "now": time.time()})).first()
        return None if row is None else LastingHold(*row)

    async def release(self, endpoint: str) -> None:
        """End the endpoint's lasting hold and owe its pause: a command is about to pause it."""
        owed = (
            "UPDATE awake_window SET owed = 1 WHERE endpoint = :endpoint AND state <> 'closed' "
            "AND EXISTS (SELECT 1 FROM hold h WHERE h.window_id = awake_window.id AND h.until IS NULL "
            "AND h.kept_by IS NOT NULL) RETURNING id"
        )
        async with self._database.write() as connection:
            window = (await connection.execute(owed, {"endpoint": endpoint})).scalar_one_or_none()
            if window is not None:
                await connection.execute(END_LASTING, {"window": window, "now": time.time()})

    async def lapse(self, endpoint: str, state: EndpointState, said: str) -> None:
        """The endpoint was found asleep: close a window that only a lasting hold keeps open."""
        values = {"endpoint": endpoint, "seen": state, "said": said, "by": FOUND_ASLEEP, "now": time.time()}
        closed = (
            "UPDATE awake_window AS w SET state = 'closed', closed_at = :now, closed_by = :by, seen = :seen, "
            f"said = :said, looked_at = :now WHERE endpoint = :endpoint AND state <> 'closed' AND {_NO_PROCESS} "
            f"AND EXISTS (SELECT 1 FROM hold h WHERE h.window_id = w.id AND h.until IS NULL AND {STANDS}) RETURNING id"
        )
        async with self._database.write() as connection:
            window = (await connection.execute(closed, values)).scalar_one_or_none()
            if window is not None:
                await connection.execute(END_LASTING, values | {"window": window})

    async def forget(self, window_id: int, process_id: int) -> None:
        """Delete this process's lasting hold: what it was made for never began."""
        values = {"window": window_id, "process": process_id}
        async with self._database.write() as connection:
            await connection.execute(
                "DELETE FROM hold WHERE window_id = :window AND process_id = :process AND kept_by IS NOT NULL",
                values,
            )
            await connection.execute(
                (
                    "DELETE FROM awake_window WHERE id = :window "
                    "AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.window_id = :window)"
                ),
                values,
            )


async def split(connection: AsyncConnection, window_id: int, found: EndpointState) -> None:
    """Move a lasting hold into a closed window of its own: a process found its endpoint asleep and will resume it.

    The process continues in the window that it holds, which starts again now. The time between costs nothing.
    """
    values = {"window": window_id, "seen": found, "said": found.value, "by": FOUND_ASLEEP, "now": time.time()}
    copied = f"""
        INSERT INTO awake_window (endpoint, pause_with, state, owed, to_zero, price_per_hour, opened_at, resumed_at,
                                  asked_at, closed_at, closed_by, looked_at, seen, said)
        SELECT endpoint, pause_with, 'closed', owed, to_zero, price_per_hour, opened_at, resumed_at, asked_at,
               :now, :by, :now, :seen, :said FROM awake_window w
        WHERE id = :window AND EXISTS (
            SELECT 1 FROM hold h WHERE h.window_id = w.id AND h.until IS NULL AND {STANDS})
        RETURNING id
    """
    copy = (await connection.execute(copied, values)).scalar_one_or_none()
    if copy is None:
        return
    moved = (
        "UPDATE hold SET window_id = :copy, until = coalesce(until, :now) "
        "WHERE window_id = :window AND (until IS NOT NULL OR kept_by IS NOT NULL)"
    )
    await connection.execute(moved, values | {"copy": copy})
    begun = "UPDATE awake_window SET opened_at = :now, resumed_at = NULL WHERE id = :window"
    await connection.execute(begun, values)
