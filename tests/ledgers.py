"""New ledgers, copied from one that is made once: creating one costs a dozen disk writes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from secrets import randbelow
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.store import forgive as forgiving
from orchestrator.store.busy_timeout import BusyTimeout
from orchestrator.store.migrate import migrate
from orchestrator.store.private import make_private

if TYPE_CHECKING:
    from orchestrator.store import Store

_NUMBER = slice(60, 64)  # the offset of SQLite's `user_version`: each ledger has its own number, see `LedgerFile`


def new_ledger(path: Path) -> None:
    """Write an empty ledger, as the first run creates it, with its own number."""
    content = bytearray(_template())
    content[_NUMBER] = (1 + randbelow(2**31 - 1)).to_bytes(4)
    make_private(path)
    path.write_bytes(content)


@cache
def _template() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        make_private(path)
        migrate(path, BusyTimeout(1.0))
        assert [file.name for file in path.parent.iterdir()] == [path.name]  # the write-ahead log is empty
        return path.read_bytes()


async def forgive(store: Store, run_id: int) -> int:
    """Make the discarded items of a run available again, as `retry` does, without taking the run."""
    async with store.database.write() as connection:
        keys = await forgiving.forgivable(connection, run_id)
        await forgiving.forgive(connection, keys, asked_by=run_id)
    return len(keys)
