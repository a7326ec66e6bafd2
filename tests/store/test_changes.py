"""Whoever watches the ledger learns of every commit, of this process and of others, and of nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator.domain.errors import LedgerError
from orchestrator.store import Store
from orchestrator.store.changes import Changes
from tests.ledgers import new_ledger

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_commit_of_any_connection_is_seen_once(store: Store) -> None:
    async with Changes.watch(store.database) as changes, Store.open(str(store.database.path)) as other:
        assert await changes.seen()
        assert not await changes.seen()
        for writer in (store, other):
            await writer.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
            assert await changes.seen()
        await store.queue.listed(time.time())
        assert not await changes.seen()


async def test_a_ledger_that_was_replaced_cannot_be_watched(store: Store) -> None:
    path: Path = store.database.path
    await to_thread.run_sync(path.rename, path.with_name("aside.db"))
    await to_thread.run_sync(new_ledger, path)
    with pytest.raises(LedgerError):
        async with Changes.watch(store.database):
            pass
    await to_thread.run_sync(path.unlink)
    await to_thread.run_sync(path.with_name("aside.db").rename, path)
