"""Several processes fire the same schedules, are killed at any moment, and disagree about the time."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.schedule import slots_after
from orchestrator.store import Store
from tests.commands import Workplace, until
from tests.faults.firing import JOBS, START, declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.domain.timetable import Declared

KILLS = 15
PROCESSES = 3
SPEED = 900.0  # a quarter of an hour per second


@pytest.mark.slow
def test_processes_killed_at_any_moment_decide_about_each_slot_once(workplace: Workplace) -> None:
    anyio.run(put, str(workplace.ledger), [declared(job) for job in JOBS])
    killed_while_firing(workplace)
    assert workplace.count("schedule", "missed = 0") == len(JOBS)
    for number, job, last_slot in workplace.query("SELECT id, job, last_slot FROM schedule"):
        slots = workplace.query(f"SELECT slot, outcome, run_id FROM slot WHERE schedule_id = {number} ORDER BY slot")
        expected = islice(slots_after(declared(job).cron, START), len(slots))
        assert [slot for slot, _, _ in slots] == list(expected), "contiguous, from the first one on"
        assert {outcome for _, outcome, _ in slots} == {"fired"}
        assert slots[-1][0] == last_slot
        of_job = f"WHERE job_id = (SELECT id FROM job WHERE name = {job!r})"
        runs = workplace.query(f"SELECT due_at, id FROM run {of_job} ORDER BY id")
        assert runs == [(slot, run_id) for slot, _, run_id in slots], "one run for each slot, in their order"


async def put(ledger: str, said: list[Declared]) -> None:
    async with Store.open(ledger) as store:
        for one in said:
            await store.schedules.put(one, "file", START)


def killed_while_firing(workplace: Workplace) -> None:
    luck = random.Random(11)
    begun = time.time()

    def start() -> subprocess.Popen[bytes]:
        arguments = [str(workplace.ledger), str(begun), str(SPEED), str(luck.uniform(-300, 300))]
        program = [sys.executable, "-P", "-m", "tests.faults.firing", *arguments]
        root = Path(__file__).parents[2]
        return subprocess.Popen(program, env=workplace.environment() | {"PYTHONPATH": str(root)})

    def decided(more: int) -> Callable[[], bool]:
        so_far = workplace.count("slot")
        return lambda: workplace.count("slot") >= so_far + more

    firing = [start() for _ in range(PROCESSES)]
    try:
        for _ in range(KILLS):
            until(decided(luck.randrange(1, 12)))
            victim = luck.randrange(PROCESSES)
            firing[victim].kill()
            firing[victim].wait()
            firing[victim] = start()
        until(decided(40))
    finally:
        for process in firing:
            process.kill()
            process.wait()


def test_the_night_when_clocks_go_forward_skips_no_slot() -> None:
    """For the test above: no schedule skips the hour that the wall clock skips."""
    for job, step in zip(JOBS, (60.0, 1800.0), strict=True):
        slots = list(islice(slots_after(declared(job).cron, START), 12 * 60))
        steps = {other - one for one, other in pairwise(slots)}
        assert step in steps
        assert max(steps) < 3600
