"""Only the owner can read a ledger and the files beside it, whatever the umask."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator.store import Store
from orchestrator.store.copies import back_up, compact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


@pytest.mark.usefixtures("umask")
async def test_a_new_ledger_is_private_including_its_log_folders_and_copies(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    ledger = folder / "ledger.db"
    async with Store.open(str(ledger)) as store:
        await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        assert modes(folder) == {0o600}
    await to_thread.run_sync(lambda: back_up(ledger, folder / "copy.db", force=False))
    await to_thread.run_sync(lambda: back_up(ledger, folder / "copy.db", force=True))
    await to_thread.run_sync(lambda: compact(ledger))
    assert modes(folder) == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}


async def test_a_ledger_readable_by_others_is_made_private_even_behind_a_link(tmp_path: Path) -> None:
    ledger, link, copy = tmp_path / "ledger.db", tmp_path / "link.db", tmp_path / "ledger.db.before-0001"
    async with Store.open(str(ledger)):
        pass
    copy.touch()
    for path in (ledger, copy):
        path.chmod(0o644)
    link.symlink_to(ledger)
    async with Store.open(str(link)) as store:
        await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        assert modes(tmp_path) == {0o600}


async def test_a_ledger_shared_with_a_group_stays_shared(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    async with Store.open(str(ledger)):
        pass
    ledger.chmod(0o660)
    async with Store.open(str(ledger)) as store:
        await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
        assert modes(tmp_path) == {0o660}


async def test_a_link_to_a_missing_ledger_creates_a_private_one(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    async with Store.open(str(tmp_path / "link.db")):
        assert modes(tmp_path) == {0o600}
