"""The log of a run says what the run is waiting for."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.run_log import event_log
from orchestrator.store.sqlite import WAL
from tests.commands import rows, until
from tests.faults.test_ledger_trouble import locked_by_a_stopped_process

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.faults.scene import Scene
    from tests.servers import InferenceServer


def test_the_log_says_why_an_endpoint_does_not_wake(scene: Scene) -> None:
    scene.service.script("batch", initializing=3600.0)
    log = event_log(scene.workplace.ledger, 1)
    with scene.workplace.start("run", "--quiet", scene.job(), env=scene.env) as running:
        until(lambda: log.exists() and "replicas" in log.read_text())
        running.send(signal.SIGINT)
        assert running.end().code == 130
    names = [line.split()[2] for line in log.read_text().splitlines()]
    wanted = [
        "wake_began",
        "resume_asked",
        "leave_began",
        "pause_asked",
        "pause_confirmed",
        "session_ended",
        "run_ended",
    ]
    assert [name for name in names if name in wanted] == wanted
    assert 'state=starting detail="initializing, 0 of 1 replicas' in log.read_text()
    assert scene.service.token not in log.read_text()


@pytest.mark.skipif(sys.platform != "linux" or not WAL, reason="no other system says who holds a lock")
def test_the_log_names_the_process_that_locks_the_ledger(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(hold_after=0)
    workplace.write_rows(rows(range(4)))
    log = event_log(workplace.ledger, 1)
    with workplace.start("run", "--quiet", workplace.job()) as running:
        until(lambda: server.stats().in_flight == 4)
        with locked_by_a_stopped_process(workplace) as holder:
            until(lambda: f"held by process {holder.pid}" in log.read_text())
            holder.send_signal(signal.SIGCONT)
            holder.communicate("\n")
        server.behave()
        assert running.end().code == 0
    (line,) = (line for line in log.read_text().splitlines() if " ledger_busy " in line)
    assert " WARNING ledger_busy what=" in line
