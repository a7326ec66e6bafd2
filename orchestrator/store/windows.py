"""Transitions of awake windows: which processes use a billed endpoint, and whether its pause is owed.

An endpoint has at most one open window. It is in use while a living process or a lasting hold holds it. A window whose
pause is owed and that nothing holds is a debt, which any process may pay.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Pause
from orchestrator.store.lasting_holds import END_LASTING, KEEP, STANDS, split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.terms import Billed, LastingHold, Spent, Terms
    from orchestrator.store.connection import AsyncConnection, LedgerRow
    from orchestrator.store.database import Database


class Leaving(StrEnum):
    """What happens to a window that a run leaves."""

    STILL_HELD = "still held"  # others use it; the last of them will pause it
    KEPT = "kept"  # a lasting hold keeps it awake
    NOT_OURS = "not ours"  # it ran before us, or is to be left running
    OWED = "owed"  # pause it
    FENCED = "fenced"  # we were declared dead: only a living process may pay the debt


@dataclass(frozen=True, slots=True)
class Holder:
    """A living process that uses an endpoint, and its run; no run if the process only pauses the endpoint."""

    process_id: int
    host: str
    pid: int
    run_id: int | None
    job: str | None
    since: float


@dataclass(frozen=True, slots=True)
class Debt:
    """A window that nothing holds any more."""

    window_id: int
    endpoint: str
    pause_with: Mapping[str, object]
    owed: bool
    to_zero: bool
    opened_at: float
    said: str | None


_LIVE = """
(SELECT count(*) FROM hold h JOIN process p ON p.id = h.process_id
 WHERE h.window_id = w.id AND h.until IS NULL AND h.kept_by IS NULL AND p.state = 'live' AND h.process_id <> :process)
"""
_KEPT = f"(SELECT count(*) FROM hold h WHERE h.window_id = w.id AND h.until IS NULL AND {STANDS})"
_LIVE_HOLDS = f"({_LIVE} + {_KEPT})"
_STANDING = f"""
SELECT w.id, w.state, w.owed, {_LIVE_HOLDS} AS live FROM awake_window w
WHERE w.endpoint = :endpoint AND w.state <> 'closed'
"""
_LEFT = f"""
SELECT w.state, w.owed, w.to_zero, w.seen, w.said, {_LIVE} AS live, {_KEPT} AS kept,
       (SELECT p.state FROM process p WHERE p.id = :process) AS me FROM awake_window w WHERE w.id = :window
"""
_HOLD = (
    "INSERT INTO hold (window_id, process_id, run_id, job, since, kept_by, expires_at) "
    "VALUES (:window, :process, :run, :job, :now, :kept_by, :expires_at)"
)
_BY_PROCESS: Mapping[str, object] = {"run": None, "job": None, "kept_by": None, "expires_at": None}
_END_HOLD = """
UPDATE hold SET until = :now, cold_start = :cold_start, work = :work, idle = :idle, pausing = :pausing
WHERE window_id = :window AND process_id = :process AND until IS NULL AND kept_by IS NULL
"""
_CLOSE = """
UPDATE awake_window SET state = 'closed', closed_at = :now, closed_by = :by, seen = :seen, said = :said
WHERE id = :window AND state <> 'closed'
"""
_BILL = "UPDATE awake_window SET billed_seconds = :seconds, billed_dollars = :dollars WHERE id = :window"
_OWED = "w.id, w.endpoint, w.pause_with, w.owed, w.to_zero, w.opened_at, w.said"  # what a debt is made of
_UNSEEN = {"seen": None, "said": None}


class Windows:
    """The transitions of windows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enter(
        self,
        terms: Terms,
        process_id: int,
        run_id: int | None = None,
        job: str | None = None,
        lasting: LastingHold | None = None,
    ) -> int | None:
        """Hold the endpoint's open window, or a new one; None while a process is pausing the endpoint.

        A lasting hold replaces the existing one.
        """
        values: dict[str, object] = {"endpoint": terms.endpoint, "process": process_id, "run": run_id, "job": job}
        values |= {"price": terms.price_per_hour, "with": _json(terms.pause_with), "now": time.time()}
        values |= {"kept_by": lasting and lasting.kept_by, "expires_at": lasting and lasting.expires_at}
        opened = (
            "INSERT INTO awake_window (endpoint, pause_with, state, price_per_hour, opened_at) "
            "VALUES (:endpoint, :with, 'open', :price, :now) RETURNING id"
        )
        joined = (
            "UPDATE awake_window SET state = 'open', price_per_hour = coalesce(:price, price_per_hour) "
            "WHERE id = :window"
        )
        async with self._database.write() as connection:
            standing = (await connection.execute(_STANDING, values)).one_or_none()
            if standing is not None and not (standing.live or standing.owed):  # a dead process left it: close it
                await connection.execute(_CLOSE, {"window": standing.id, "by": "run", "now": time.time()} | _UNSEEN)
                standing = None
            if standing is None:
                window = int((await connection.execute(opened, values)).scalar_one())
            elif standing.state == "closing" and standing.live:
                return None
            else:
                window = standing.id
                await connection.execute(joined, values | {"window": window})
            if lasting is not None:
                await connection.execute(END_LASTING, values | {"window": window})
            await connection.execute(_HOLD, values | {"window": window})
        return window

    async def take_on(self, window_id: int, terms: Terms, price_per_hour: float | None) -> None:
        """Owe a pause of an endpoint that was found awake, if its terms say so."""
        values: dict[str, object] = {"window": window_id, "owed": terms.owed_if_found, "price": price_per_hour}
        values["to_zero"] = terms.pause is Pause.SCALE_TO_ZERO
        statement = (
            "UPDATE awake_window SET owed = max(owed, :owed), to_zero = max(to_zero, :to_zero), "
            "price_per_hour = coalesce(:price, price_per_hour) WHERE id = :window"
        )
        async with self._database.write() as connection:
            await connection.execute(statement, values)

    async def pause_with(self, endpoint: str) -> Mapping[str, object] | None:
        """What pauses the endpoint that was last awake under this name, as in `Terms`; None if none was."""
        statement = "SELECT pause_with FROM awake_window WHERE endpoint = :endpoint ORDER BY id DESC LIMIT 1"
        async with self._database.read() as connection:
            kept = (await connection.execute(statement, {"endpoint": endpoint})).scalar_one_or_none()
        found: Mapping[str, object] | None = None if kept is None else orjson.loads(kept)
        return found

    async def price(self, window_id: int) -> float | None:
        """Dollars per hour, if any holder knows."""
        statement = "SELECT price_per_hour FROM awake_window WHERE id = :window"
        async with self._database.read() as connection:
            price: float | None = (await connection.execute(statement, {"window": window_id})).scalar_one()
            return price

    async def owe(
        self,
        window_id: int,
        terms: Terms,
        found: EndpointState,
        *,
        again_after: float = 0.0,
        process_id: int | None = None,
    ) -> bool:
        """Record the debt before it is incurred: the endpoint is about to be resumed.

        False if another holder asked for that less than `again_after` seconds ago, or if the given process no longer
        holds the window: it was declared dead, and nothing would pay for what it wakes. A lasting hold is over, because
        the endpoint is asleep; it gets a closed window of its own. If no pause will be owed, the job keeps the endpoint
        awake from now on, even when this process is gone.
        """
        values: dict[str, object] = {"window": window_id, "owed": terms.owed_if_resumed, "process": process_id}
        values |= {"to_zero": terms.to_zero(found), "with": _json(terms.pause_with), "again_after": again_after}
        is_my_turn = (
            "SELECT 1 FROM awake_window WHERE id = :window "
            "AND (asked_at IS NULL OR asked_at <= :now - :again_after OR asked_at > :now) "
            "AND (:process IS NULL OR EXISTS (SELECT 1 FROM hold h "
            "WHERE h.window_id = :window AND h.process_id = :process AND h.until IS NULL))"
        )
        owed = (
            "UPDATE awake_window SET to_zero = iif(owed, to_zero, :to_zero), owed = max(owed, :owed), "
            "pause_with = :with, resumed_at = coalesce(resumed_at, :now), asked_at = :now, looked_at = :now, "
            "seen = 'starting' WHERE id = :window"
        )
        async with self._database.write() as connection:
            values["now"] = time.time()  # when the lock is ours, as in `may_look`
            if (await connection.execute(is_my_turn, values)).one_or_none() is None:
                return False
            if process_id is not None:
                await split(connection, window_id, found)
            await connection.execute(owed, values)
            if not terms.owed_if_resumed:
                await connection.execute(KEEP, values)
            return True

    async def owe_member(self, window_id: int, terms: Terms, process_id: int) -> bool:
        """Record the debt before another member of an endpoint that is awake is resumed.

        False if the process no longer holds the window.
        """
        statement = (
            "UPDATE awake_window SET owed = max(owed, :owed), resumed_at = coalesce(resumed_at, :now) "
            "WHERE id = :window AND EXISTS (SELECT 1 FROM hold h "
            "WHERE h.window_id = :window AND h.process_id = :process AND h.until IS NULL)"
        )
        values = {"window": window_id, "process": process_id, "owed": terms.owed_if_resumed, "now": time.time()}
        async with self._database.write() as connection:
            return (await connection.execute(statement, values)).rowcount == 1

    async def label(self, window_id: int) -> str:
        """Return a name for a window that no window of another ledger is likely to have."""
        statement = "SELECT opened_at FROM awake_window WHERE id = :window"
        async with self._database.read() as connection:
            opened_at = (await connection.execute(statement, {"window": window_id})).scalar_one()
        return f"{window_id}-{opened_at * 1000:.0f}"

    async def may_look(self, window_id: int, every: float) -> bool:
        """Whether this process may ask the provider now: all processes together ask once in `every` seconds."""
        statement = (
            "UPDATE awake_window SET looked_at = :now "
            "WHERE id = :window AND (looked_at <= :now - :every OR looked_at > :now)"  # the clock may have gone back
        )
        async with self._database.write() as connection:
            # it is `now` when the lock is ours: a time from before it would be earlier than what another has written
            # meanwhile, and so take a turn for one that a clock wrote which has gone back since
            values = {"window": window_id, "every": every, "now": time.time()}
            return (await connection.execute(statement, values)).rowcount == 1

    async def saw(self, window_id: int, state: EndpointState, said: str) -> None:
        """Store the state that the provider reported, for all holders of the window."""
        values = {"window": window_id, "seen": state, "said": said}
        async with self._database.write() as connection:
            await connection.execute("UPDATE awake_window SET seen = :seen, said = :said WHERE id = :window", values)

    async def seen(self, window_id: int) -> tuple[EndpointState, str] | None:
        """The state that the provider last reported to any process."""
        statement = "SELECT seen, said FROM awake_window WHERE id = :window AND seen IS NOT NULL"
        async with self._database.read() as connection:
            row = (await connection.execute(statement, {"window": window_id})).one_or_none()
        return None if row is None else (EndpointState(row.seen), row.said)

    async def leave(self, window_id: int, process_id: int, spent: Spent) -> tuple[Leaving, bool]:
        """End this process's use of the window; also return whether to scale to zero rather than pause.

        If the pause is owed, the hold is kept until `close`, so that no process can enter meanwhile.
        """
        async with self._database.write() as connection:
            row = await _left_by(connection, window_id, process_id)
            match _leaving(row):
                case Leaving.STILL_HELD | Leaving.KEPT:
                    await _end_hold(connection, window_id, process_id, spent)
                case Leaving.NOT_OURS if row.state != "closed":
                    await _end_hold(connection, window_id, process_id, spent)
                    ending = {"window": window_id, "by": "run", "seen": row.seen, "said": row.said, "now": time.time()}
                    await connection.execute(_CLOSE, ending)
                case Leaving.OWED:
                    closing = "UPDATE awake_window SET state = 'closing' WHERE id = :window"
                    await connection.execute(closing, {"window": window_id})
            return _leaving(row), bool(row.to_zero)

    async def would_leave(self, window_id: int, process_id: int) -> tuple[Leaving, bool]:
        """What `leave` would return, if the ledger cannot be written."""
        async with self._database.read() as connection:
            row = await _left_by(connection, window_id, process_id)
            return _leaving(row), bool(row.to_zero)

    async def close(
        self,
        window_id: int,
        process_id: int,
        state: EndpointState | None,
        said: str | None,
        *,
        by: str,
        spent: Spent,
        billed: Billed | None = None,
    ) -> None:
        """Close the window: the endpoint was seen asleep, so the debt is paid, or nothing was owed."""
        values = {"window": window_id, "by": by, "seen": state, "said": said, "now": time.time()}
        async with self._database.write() as connection:
            await _end_hold(connection, window_id, process_id, spent)
            await connection.execute(END_LASTING, values)  # one that had expired
            await connection.execute(_CLOSE, values)
            if billed is not None:
                bill = {"window": window_id, "seconds": billed.seconds, "dollars": billed.dollars}
                await connection.execute(_BILL, bill)

    # -- debts --------------------------------------------------------------------------------------------------------

    async def debts(self) -> list[Debt]:
        """Open windows that no living process and no lasting hold holds."""
        statement = (
            f"SELECT {_OWED} FROM awake_window w INDEXED BY ux_awake_window_endpoint "
            f"WHERE w.state <> 'closed' AND {_LIVE_HOLDS} = 0 ORDER BY w.id"
        )
        async with self._database.read() as connection:
            rows = await connection.execute(statement, {"process": 0, "now": time.time()})
            return [_debt(row) for row in rows]

    async def owed(self, window_id: int) -> Debt | None:
        """The pause that this window owes, whichever holder incurred it."""
        statement = f"SELECT {_OWED} FROM awake_window w WHERE w.id = :window AND w.owed AND w.state <> 'closed'"
        async with self._database.read() as connection:
            row = (await connection.execute(statement, {"window": window_id})).one_or_none()
        return None if row is None else _debt(row)

    async def adopt(self, endpoint: str, pause_with: Mapping[str, object], *, to_zero: bool, opened_at: float) -> None:
        """Owe a pause that a ledger which is gone owed. If the endpoint is in use, its last user pauses it."""
        statement = (
            "INSERT INTO awake_window (endpoint, pause_with, state, owed, to_zero, opened_at) "
            "VALUES (:endpoint, :with, 'open', 1, :to_zero, :opened_at) "
            "ON CONFLICT (endpoint) WHERE state <> 'closed' DO UPDATE SET owed = 1, to_zero = max(to_zero, :to_zero)"
        )
        values = {"endpoint": endpoint, "with": _json(pause_with), "to_zero": to_zero, "opened_at": opened_at}
        async with self._database.write() as connection:
            await connection.execute(statement, values)

    async def claim(self, window_id: int, process_id: int) -> bool:
        """Take over a debt to pay it; False if another process was faster."""
        values = {**_BY_PROCESS, "window": window_id, "process": process_id, "now": time.time()}
        taken = (
            "UPDATE awake_window AS w SET state = 'closing' "
            f"WHERE id = :window AND state <> 'closed' AND {_LIVE_HOLDS} = 0"
        )
        async with self._database.write() as connection:
            if (await connection.execute(taken, values)).rowcount == 0:
                return False
            await connection.execute(_HOLD, values)
            return True

    async def drop(self, window_id: int, process_id: int, spent: Spent) -> None:
        """Give up a hold without having seen the endpoint asleep: the window is a debt again."""
        async with self._database.write() as connection:
            await _end_hold(connection, window_id, process_id, spent)

    async def holders(self, endpoint: str) -> list[Holder]:
        """The processes that use the endpoint now, in order of arrival."""
        statement = """
            SELECT p.id, p.host, p.pid, h.run_id, h.job, h.since
            FROM awake_window w JOIN hold h ON h.window_id = w.id JOIN process p ON p.id = h.process_id
            WHERE w.endpoint = :endpoint AND w.state <> 'closed' AND h.until IS NULL AND h.kept_by IS NULL
            AND p.state = 'live' ORDER BY h.id
        """
        async with self._database.read() as connection:
            return [Holder(*row) for row in await connection.execute(statement, {"endpoint": endpoint})]


async def _left_by(connection: AsyncConnection, window_id: int, process_id: int) -> LedgerRow:
    return (await connection.execute(_LEFT, {"window": window_id, "process": process_id, "now": time.time()})).one()


def _leaving(row: LedgerRow) -> Leaving:
    if row.state == "closed":  # we were declared dead, and another process has paid the debt
        return Leaving.NOT_OURS
    if row.live:
        return Leaving.STILL_HELD
    if row.kept:
        return Leaving.KEPT
    if not row.owed:
        return Leaving.NOT_OURS
    if row.me == "dead":  # another process would not wait for our pause before it resumes the endpoint
        return Leaving.FENCED
    return Leaving.OWED


async def _end_hold(connection: AsyncConnection, window_id: int, process_id: int, spent: Spent) -> None:
    values = {"window": window_id, "process": process_id, "now": time.time()}
    values |= {name: getattr(spent, name) for name in ("cold_start", "work", "idle", "pausing")}
    await connection.execute(_END_HOLD, values)


def _debt(row: LedgerRow) -> Debt:
    pause_with, owed, to_zero = orjson.loads(row.pause_with), bool(row.owed), bool(row.to_zero)
    return Debt(row.id, row.endpoint, pause_with, owed, to_zero, row.opened_at, row.said)


def _json(value: object) -> str:
    return orjson.dumps(value, default=dict).decode()
