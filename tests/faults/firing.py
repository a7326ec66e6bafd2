"""A process that only fires schedules: `firing.py LEDGER BEGUN SPEED SKEW`. Its clock is fast and wrong."""

from __future__ import annotations

import sys
import time
from functools import partial

import anyio

from orchestrator.domain.schedule import Cron
from orchestrator.domain.timetable import Declared
from orchestrator.engine.daemon.schedules import fire_due
from orchestrator.store import Store

START = 1_774_728_000.0  # 2026-03-28 20:00 UTC; a few hours later the clocks of Europe go forward
JOBS = ("by_the_minute", "twice_an_hour")


def declared(job: str) -> Declared:
    expression = "* * * * *" if job == JOBS[0] else "7,37 0-23 * * *"
    cron = Cron(expression, "Europe/Paris", overlap="allow", catch_up="all", catch_up_window="365d")
    return Declared(job, {"jobfile": f"/jobs/{job}.py"}, ["a"], cron)


async def fire(ledger: str, begun: float, speed: float, skew: float) -> None:
    async with Store.open(ledger) as store:
        while True:
            await fire_due(store, START + (time.time() - begun) * speed + skew)


if __name__ == "__main__":
    anyio.run(partial(fire, sys.argv[1], *map(float, sys.argv[2:])))
