"""The events of a run, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain import events
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.scripted import Scripted, job_of
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.domain.events import RunEvent
    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"})


class Recorder:
    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """Return the names, each once if repeated in a row."""
        names = [type(event).__name__ for event in self.events]
        return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]


async def test_each_phase_of_a_run_is_an_event(store: Store, tmp_path: Path) -> None:
    endpoint, heard = Scripted(terms=TERMS, state=EndpointState.PAUSED), Recorder()
    await run_job(
        RunRequest(job_of(["a"], endpoint, tmp_path)), store, Progress(), Stop(), UNGUARDED, listeners=[heard]
    )
    assert [name for name in heard.names if name != "StateSeen"] == [
        "RunBegan",
        "SourceRead",
        "WorkBegan",
        "SessionBegan",
        "WakeBegan",
        "AwakeWindowEntered",
        "PriceSeen",
        "ResumeAsked",
        "EndpointAwake",
        "LimitChanged",
        "ItemsSettled",
        "LeaveBegan",
        "PauseAsked",
        "PauseConfirmed",
        "SessionEnded",
        "DeliveryBegan",
        "Delivered",
        "RunEnded",
    ]
    (ended,) = (event for event in heard.events if isinstance(event, events.RunEnded))
    assert ended.outcome == "finished"
