from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import rows, until

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer


def test_a_live_run_is_tuned_held_and_released_from_another_process(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(400)))
    server.behave(hold_after=50)
    with workplace.start("run", workplace.job(policy="concurrency=4")) as running:
        server.wait(lambda stats: stats.in_flight == 4)
        assert workplace.run("tune", "talk", "concurrency=16").code == 0
        server.wait(lambda stats: stats.in_flight == 16)
        assert workplace.run("hold", "talk").code == 0
        assert workplace.run("status", "--json").json["state"] == "held"
        server.behave(latency=2.0)  # four times the interval between two looks for commands; 22 such rounds are left
        until(lambda: workplace.count("chunk", "state = 'leased'") == 0)
        assert 0 < workplace.count("result") < 400
        running.says("held: ")
        server.behave()
        assert workplace.run("go", "talk").code == 0
        assert running.end().code == 0
    assert server.quiet().duplicates == 0


@pytest.mark.parametrize("setting", ["concurrency=0", "concurrency=many", "speed=1", "concurrency"])
def test_a_setting_that_cannot_be_tuned_is_reported(workplace: Workplace, setting: str) -> None:
    ended = workplace.run("tune", "1", setting)
    assert ended.code == 2
    assert setting in ended.err


def test_a_finished_run_rejects_commands(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(3)))
    assert workplace.run("run", workplace.job()).code == 0
    assert "has ended" in workplace.run("hold", "talk").line
    assert server.stats().requests == 3
