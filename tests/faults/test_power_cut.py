"""Acknowledged answers survive a power cut at any later moment."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.store.sqlite import DRIVER
from tests.faults.power import Disk, Done, Recorder
from tests.faults.settling import CHUNKS, ROWS
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.commands import Workplace

MARKS = "marks"
OTHER_MOMENTS = 40  # moments of a power cut, beside those at which an answer is known to be kept
SURVIVORS: dict[str, Callable[[random.Random, Done], bool]] = {
    "nothing": lambda _luck, _done: False,
    "this and that": lambda luck, _done: luck.random() < 0.5,
}


@pytest.mark.parametrize("journal", ["wal", "rollback journal"])
def test_settled_items_survive_a_power_cut_at_any_moment(workplace: Workplace, tmp_path: Path, journal: str) -> None:
    disk, luck = tmp_path / "disk", random.Random(5)
    disk.mkdir()
    recorder = Recorder(tmp_path, disk)
    root = str(Path(__file__).parents[2])
    program = [sys.executable, "-P", "-m", "tests.faults.settling", str(disk / "ledger.db"), str(disk / MARKS), journal]
    subprocess.run(program, env=workplace.environment() | recorder.env | {"PYTHONPATH": root}, check=True)
    done = list(recorder.recorded())
    moments = {number for number, one in enumerate(done) if one.name == MARKS and one.what == "W"}
    moments |= set(luck.sample(range(len(done)), OTHER_MOMENTS))
    state, kept = Disk(), set[int]()
    for number, one in enumerate(done):
        state.do(one)
        if one.name == MARKS:
            kept |= {int(key) for key in one.data.split()}
        for survives in SURVIVORS.values() if number in moments else ():
            assert kept <= after_a_cut(state, partial(survives, luck))
    assert len(kept) == CHUNKS * ROWS
    syncs = {one.name for one in done if one.what == "S"}
    assert {"ledger.db", "ledger.db-wal" if journal == "wal" else "ledger.db-journal"} <= syncs


def after_a_cut(disk: Disk, survives: Callable[[Done], bool]) -> set[int]:
    """Check that the ledger found after the cut is sound; return its settled items."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        disk.after_a_cut(Path(folder), survives)
        path = Path(folder) / "ledger.db"
        with closing(DRIVER.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'result'").fetchall():
                return set()
            return {row[0] for row in connection.execute("SELECT item_key FROM result")}
