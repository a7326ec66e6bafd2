"""At three in the morning, a run's log says what the run waits for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from orchestrator.run_log import event_log
from tests.commands import until

if TYPE_CHECKING:
    from tests.faults.scene import Scene


def test_the_log_says_what_an_endpoint_that_does_not_wake_waits_for(scene: Scene) -> None:
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
