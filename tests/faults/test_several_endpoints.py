"""A run at two billed endpoints with a third server as a fallback: however it ends, both are paused."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows, until
from tests.faults.scene import ANSWERED, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Scene

BOTH = "[HuggingFaceEndpoint('acme/batch'), HuggingFaceEndpoint('acme/other')]"
POLICY = "concurrency=4, backoff=Backoff(first=0.01), grace=10"


@pytest.fixture
def job(scene: Scene) -> Path:
    scene.service.add("other")
    return job_on(scene, BOTH, POLICY)


def job_on(scene: Scene, endpoint: str, policy: str) -> Path:
    prelude = "from orchestrator.endpoints import HttpEndpoint, HuggingFaceEndpoint"
    return scene.workplace.job(prelude=prelude, endpoint=endpoint, policy=policy)


def both_paused(scene: Scene) -> bool:
    return scene.left_paused and scene.service.endpoint("other").state == "paused"


def asked(scene: Scene) -> dict[str, int]:
    one, other = (scene.service.endpoint(name).asked for name in ("batch", "other"))
    return {text: one.get(text, 0) + other.get(text, 0) for text in one.keys() | other.keys()}


def paused(scene: Scene) -> list[object]:
    return [call for call in scene.service.calls(" /v2/") if str(call).endswith("other/pause")]


def test_both_endpoints_are_woken_share_the_work_and_are_paused(scene: Scene, job: Path) -> None:
    ended = scene.workplace.run("run", "--json", job, env=scene.env)
    assert ended.code == 0, ended.err
    assert {stay["endpoint"] for stay in ended.json["awake"]} == {"acme/batch", "acme/other"}
    assert all(" read as paused at 20" in stay["proof"] for stay in ended.json["awake"])
    assert asked(scene) == {str(row["text"]): 1 for row in rows(range(ITEMS))}
    assert [row["output"] for row in scene.workplace.outputs()] == [
        [answer_to(str(row["text"]))] for row in rows(range(ITEMS))
    ]
    assert both_paused(scene)


@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C twice"])
def test_both_endpoints_are_paused_when_the_run_is_aborted(scene: Scene, job: Path, how: str) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        until(lambda: all(scene.service.endpoint(name).in_flight == 4 for name in ("batch", "other")))
        if how == "kill -9":
            running.kill()
        else:
            running.send(signal.SIGINT)
            running.send(signal.SIGINT)
            assert running.end().code == 130
    until(lambda: both_paused(scene))
    scene.service.behave()
    scene.run("run", job)
    assert max(asked(scene).values()) <= 2
    assert both_paused(scene)


def test_a_failing_endpoint_is_paused_and_the_other_does_its_work(scene: Scene, job: Path) -> None:
    scene.service.script("other", fails="CUDA out of memory")
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        until(lambda: scene.service.endpoint("batch").in_flight == 4)
        until(lambda: paused(scene))
        scene.service.behave()
        ended = running.end()
    assert ended.code == 0
    assert "endpoint acme/other was given up during the run: endpoint acme/other failed" in ended.err
    assert [row["output"] for row in scene.workplace.outputs()] == [
        [answer_to(str(row["text"]))] for row in rows(range(ITEMS))
    ]
    assert both_paused(scene)


def test_a_few_items_go_to_the_fallback_and_wake_nothing(scene: Scene) -> None:
    endpoint = f"HuggingFaceEndpoint('acme/batch'), fallback=HttpEndpoint({scene.workplace.url!r})"
    job = job_on(scene, endpoint, f"{POLICY}, fallback_below={ITEMS + 1}")
    scene.run("run", job)
    assert scene.workplace.count("result", "outcome = 'completed'") == ITEMS
    assert scene.windows == []
    assert scene.service.endpoint("batch").asked == {}
