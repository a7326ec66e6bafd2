"""Rollouts at two billed endpoints, killed again and again: nothing is lost, and both endpoints are paused."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows, until
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Scene

pytestmark = pytest.mark.unmeasured
ITEMS = 60
ASKS = 6  # of each item
IN_FLIGHT = 4  # at each endpoint
KILLS = 8
_JOB = """
from orchestrator import Backoff, Job, Policy
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

async def rollout(row, ask):
    drafts = [ask.soon(f"draft {{number}} {{row['text']}}") for number in range(3)]
    votes = [ask.soon(f"vote {{number}} {{row['text']}}", "judge") for number in range(2)]
    found = [await one for one in [*drafts, *votes]]
    return await ask(f"final {{found}}", "judge")

job = Job(
    "rollouts", JsonlSource({rows!r}, id="id"), rollout=rollout, sink=JsonlSink({output!r}),
    endpoint={{"writer": HuggingFaceEndpoint("acme/batch"), "judge": HuggingFaceEndpoint("acme/other")}},
    policy=Policy(concurrency={in_flight}, batch_size=1, backoff=Backoff(first=0.01), grace=10),
)
"""


@pytest.fixture
def job(scene: Scene) -> Path:
    scene.service.add("other")
    scene.workplace.write_rows(rows(range(ITEMS)))
    path = scene.workplace.folder / "job.py"
    values = {"rows": str(scene.workplace.rows), "output": str(scene.workplace.output), "in_flight": IN_FLIGHT}
    path.write_text(_JOB.format(**values))
    return path


def expected(text: str) -> object:
    asked = [f"draft {number} {text}" for number in range(3)] + [f"vote {number} {text}" for number in range(2)]
    return [answer_to(f"final {[[answer_to(one)] for one in asked]}")]


def asked(scene: Scene) -> dict[str, int]:
    return scene.service.endpoint("batch").asked | scene.service.endpoint("other").asked


def both_paused(scene: Scene) -> bool:
    return scene.left_paused and scene.service.endpoint("other").state in {"paused", "scaledToZero"}


def has_asked(scene: Scene, wanted: int) -> bool:
    return scene.workplace.count("ask") >= wanted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3])
def test_rollouts_killed_again_and_again_lose_nothing_and_repeat_only_what_was_in_flight(
    scene: Scene, job: Path, seed: int
) -> None:
    luck, kills = random.Random(seed), 0
    while kills < KILLS:
        recorded = scene.workplace.count("ask") if kills else 0
        wanted = min(recorded + luck.randrange(1, 2 * ITEMS * ASKS // KILLS), ITEMS * ASKS - 1)
        scene.service.behave(hold_after=wanted - recorded + 4 * IN_FLIGHT)
        with scene.start(job) as running:
            until(partial(has_asked, scene, wanted))
            running.kill()
        kills += 1
        until(lambda: both_paused(scene))
    scene.service.behave()
    scene.run("run", job)
    assert [row["output"] for row in scene.workplace.outputs()] == [
        expected(str(row["text"])) for row in rows(range(ITEMS))
    ]
    assert len(asked(scene)) == ITEMS * ASKS
    assert sum(asked(scene).values()) - ITEMS * ASKS <= 2 * IN_FLIGHT * KILLS
    assert scene.workplace.count("ask", "outcome = 'completed'") == ITEMS * ASKS
    assert both_paused(scene)
