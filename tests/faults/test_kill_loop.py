"""kill -9 at any moment: nothing is lost, and only requests in flight are asked twice."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows, until
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Running, Workplace
    from tests.servers import InferenceServer

    Moment = Callable[[Running, random.Random], None]

pytestmark = pytest.mark.unmeasured
ITEMS = 1500
CONCURRENCY = 16
KILLS = 20
AFTER = 20  # requests answered at most after the moment at which a process is killed, however late the kill is


def moments(workplace: Workplace, server: InferenceServer) -> list[tuple[str, Moment]]:
    """Yield what to wait for before each kill, in the order of the kills."""

    def starting(_running: Running, luck: random.Random) -> None:
        time.sleep(luck.uniform(0.0, 0.15))  # a random moment, not a wait for an event

    def ingesting(_running: Running, luck: random.Random) -> None:
        until(lambda: workplace.count("run", "state = 'ingesting'") or workplace.count("result"))
        time.sleep(luck.uniform(0.0, 0.03))

    def asking(_running: Running, luck: random.Random) -> None:
        wanted = server.stats().requests + luck.randrange(1, 60)
        server.behave(latency=0.012, hold_after=wanted + AFTER)
        server.wait(lambda stats: stats.requests >= wanted)
        time.sleep(luck.uniform(0.0, 0.02))

    def delivering(running: Running, _luck: random.Random) -> None:
        server.behave()
        until(lambda: list(workplace.folder.glob(".out.*.tmp")) or running.process.poll() is not None)

    early = [("start", starting)] * 2 + [("ingest", ingesting)] * 3
    work = [("ask", asking)] * 11 + [("start", starting)]
    return [*early, *work, *[("deliver", delivering)] * 3]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7])
def test_a_run_killed_twenty_times_loses_nothing_and_repeats_only_what_was_in_flight(
    workplace: Workplace, server: InferenceServer, seed: int
) -> None:
    luck = random.Random(seed)
    wanted = rows(range(ITEMS))
    luck.shuffle(wanted)
    workplace.write_rows(wanted)
    job = workplace.job(policy=f"concurrency={CONCURRENCY}")
    plan = moments(workplace, server)
    assert len(plan) == KILLS
    for phase, wait in plan:
        server.behave(latency=0.012, hold_after=server.stats().requests + AFTER)
        asked, answered = server.quiet().requests, workplace.count("result")
        assert any(killed(workplace, job, wait, luck) for _ in range(5)), f"always ended before the kill ({phase})"
        server.behave()
        in_flight = server.quiet().requests - asked - (workplace.count("result") - answered)
        assert in_flight <= CONCURRENCY, phase
        assert workplace.processes() == []
        assert no_whole_file_is_wrong(workplace.output, wanted), phase
    server.behave()
    ended = workplace.run("run", "--quiet", job)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    stats = server.quiet()
    assert [(row["id"], row["output"]["said"]) for row in workplace.outputs()] == [
        (row["id"], answer_to(str(row["text"]))) for row in wanted
    ]
    assert stats.asked == {row["text"] for row in wanted}
    assert stats.duplicates <= CONCURRENCY * KILLS
    assert stats.peak <= CONCURRENCY
    assert list(workplace.folder.glob(".out.*.tmp")) == []


def killed(workplace: Workplace, job: Path, wait: Moment, luck: random.Random) -> bool:
    """Whether the kill came before the end."""
    with workplace.start("run", "--quiet", job) as running:
        wait(running, luck)
        landed = running.process.poll() is None
        running.kill()
    return landed


def no_whole_file_is_wrong(output: Path, wanted: list[dict[str, object]]) -> bool:
    """Check that every file under its final name is complete."""
    return not output.exists() or len(output.read_bytes().splitlines()) == len(wanted)
