"""Runs on endpoints of SageMaker: whatever is killed or lost, ours are deleted, and nobody else's are touched."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import rows, until
from tests.faults.audit import wrongs
from tests.faults.scene import guard_of, guards_of
from tests.sagemaker_service import (
    CREATING,
    FAILED,
    IN_SERVICE,
    KEY,
    SECRET,
    FakeEndpoint,
    Refused,
    SageMakerService,
    sagemaker_service,
)
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Workplace

ITEMS = 60
CONCURRENCY = 6
NAME = "eu-west-1/labeller"
TAG = "orchestrator-endpoint"
LOOK_OFTEN = """
from orchestrator.endpoints import SageMakerEndpoint, sagemaker_control
sagemaker_control.LOOK_EVERY = 0.05
sagemaker_control.SETTLING = 0.1
"""


class Scene:
    """A workplace with a job at the endpoint eu-west-1/labeller, beside an endpoint of somebody else."""

    def __init__(self, workplace: Workplace, service: SageMakerService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = service.environment
        self.foreign = service.add("production", team="others")
        workplace.write_rows(rows(range(ITEMS)))

    def job(self, options: str = "", policy: str = "", name: str = NAME) -> Path:
        return self.workplace.job(
            prelude=LOOK_OFTEN,
            endpoint=f"SageMakerEndpoint({name!r}, {options})",
            policy=f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), {policy}",
        )

    def start(self, job: Path, **env: str) -> Any:
        return self.workplace.start("run", "--quiet", job, env=self.env | env)

    def run(self, job: Path) -> Any:
        return self.workplace.run("run", "--quiet", job, env=self.env)

    @property
    def ours(self) -> list[FakeEndpoint]:
        return [endpoint for endpoint in self.service.endpoints if endpoint is not self.foreign]

    @property
    def alive(self) -> list[FakeEndpoint]:
        return [endpoint for endpoint in self.service.alive() if endpoint is not self.foreign]

    def asked(self) -> None:
        """Wait until an endpoint of ours holds back requests."""
        until(lambda: any(endpoint.asked for endpoint in self.alive))

    def finished(self) -> None:
        """Check that every item has its answer, ours are deleted, and nothing of anybody else was touched."""
        until(lambda: not self.workplace.processes())
        assert wrongs(self.workplace) == []
        found = {row["id"]: row["output"] for row in self.workplace.outputs()}
        assert found == {row["id"]: {"label": answer_to(str(row["text"]))} for row in rows(range(ITEMS))}
        assert self.alive == []
        self.untouched()

    def untouched(self) -> None:
        assert (self.foreign.status, self.foreign.gone_at) == (IN_SERVICE, None)
        assert set(self.service.configs) >= {"labeller", "production"}
        for path in self.workplace.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert KEY.encode() not in content, path
                assert SECRET.encode() not in content, path


@pytest.fixture
def scene(workplace: Workplace) -> Iterator[Scene]:
    with sagemaker_service() as service:
        yield Scene(workplace, service)


def test_a_run_creates_the_endpoint_from_its_configuration_and_deletes_it(scene: Scene) -> None:
    ended = scene.run(scene.job("price_per_hour=3600.0, tags={'team': 'reviews'}"))
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    (endpoint,) = scene.ours
    assert endpoint.tags == {"team": "reviews", TAG: NAME}
    ((state, by, price),) = scene.workplace.query("SELECT state, closed_by, price_per_hour FROM awake_window")
    assert (state, by, price) == ("closed", "run", 3600.0)
    cost = scene.workplace.run("costs", "--json", env=scene.env).json
    spent = str(cost)
    assert "dollars" in spent
    assert endpoint.billed > 0


def test_an_endpoint_that_was_found_running_stays_and_is_deleted_only_if_always(scene: Scene) -> None:
    theirs = scene.service.add("labeller")
    assert scene.run(scene.job()).code == 0
    assert scene.alive == [theirs]
    assert "CreateEndpoint" not in scene.service.calls
    scene.workplace.write_rows(rows(range(ITEMS + 1)))
    assert scene.run(scene.job("pause='always'")).code == 0
    assert scene.alive == []
    scene.untouched()


def test_a_component_gets_its_copies_for_the_run_and_loses_them_after_it(scene: Scene) -> None:
    scene.service.add_config("shared", components=True)
    shared = scene.service.add("shared")
    shared.instances = 0
    component = scene.service.add_component("labeller", "shared")
    assert scene.run(scene.job("component='labeller', copies=2", name="eu-west-1/shared")).code == 0
    assert (component.copies, shared.instances) == (0, 0)
    assert scene.alive == [shared]
    assert len(shared.asked) == ITEMS
    scene.untouched()


def test_two_runs_share_the_endpoint_and_only_the_last_one_deletes_it(scene: Scene) -> None:
    scene.service.holds = True
    first = scene.job()
    second = scene.workplace.job(
        "second.py",
        prelude=LOOK_OFTEN,
        name=repr("second"),
        request="'again: {text}'",
        endpoint=f"SageMakerEndpoint({NAME!r})",
        sink=f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})",
    )
    with scene.start(first) as one, scene.start(second) as two:
        until(lambda: any("again" in text for endpoint in scene.alive for text in endpoint.asked))
        scene.asked()
        one.send(signal.SIGINT)
        one.send(signal.SIGINT)
        assert one.end().code == 130
        assert len(scene.alive) == 1
        scene.service.holds = False
        assert two.end().code == 0
    assert (len(scene.ours), scene.alive) == (1, [])


def test_a_run_that_is_stopped_during_the_creation_waits_until_it_can_delete_the_endpoint(scene: Scene) -> None:
    scene.service.creating = 1.5
    with scene.start(scene.job()) as running:
        until(lambda: [endpoint.status for endpoint in scene.alive] == [CREATING])
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert scene.alive == []
    (endpoint,) = scene.ours
    assert endpoint.billed > 1.5


def test_an_endpoint_that_fails_is_deleted_and_the_run_says_why(scene: Scene) -> None:
    scene.service.fails = "The primary container for production variant AllTraffic did not pass the ping health check."
    ended = scene.run(scene.job())
    assert ended.code == 1
    assert "Failed: The primary container" in ended.err
    assert "endpoints logs eu-west-1/labeller` shows why" in ended.err
    assert ([endpoint.status for endpoint in scene.ours], scene.alive) == (["Deleting"], [])


def test_a_lack_of_machines_is_no_failure_of_the_job(scene: Scene) -> None:
    scene.service.fails = "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
    ended = scene.run(scene.job())
    assert (ended.code, scene.alive) == (4, [])
    assert "InsufficientInstanceCapacity" in ended.err
    scene.service.fails = None
    assert scene.run(scene.job()).code == 0
    scene.finished()


def test_a_quota_that_is_used_up_is_named(scene: Scene) -> None:
    said = "The account-level service limit 'ml.g4dn.xlarge for endpoint usage' is 0 Instances"
    scene.service.refuses_creation = Refused("ResourceLimitExceeded", said)
    ended = scene.run(scene.job())
    assert ended.code == 1
    assert "is 0 Instances: ask for a higher quota in Service Quotas" in ended.err
    assert scene.ours == []


def test_a_creation_whose_answer_was_lost_makes_one_endpoint(scene: Scene) -> None:
    scene.service.lose_answers = 1
    assert scene.run(scene.job()).code == 0
    scene.finished()
    assert len(scene.ours) == 1


def test_a_run_without_a_permission_names_it_and_leaves_nothing(scene: Scene) -> None:
    scene.service.denied = {"sagemaker:InvokeEndpoint"}
    ended = scene.run(scene.job())
    assert ended.code == 1
    assert "the IAM policy has to allow sagemaker:InvokeEndpoint on arn:" in ended.err
    assert scene.alive == []
    scene.untouched()


def test_an_endpoint_that_somebody_deletes_in_mid_run_is_not_created_again(scene: Scene) -> None:
    scene.service.dies_after = 25
    ended = scene.run(scene.job())
    assert ended.code == 4
    assert "was paused while it was used" in ended.err
    assert (len(scene.ours), scene.alive) == (1, [])
    scene.service.dies_after = None
    assert scene.run(scene.job()).code == 0
    scene.finished()
    assert scene.workplace.count("attempt") == 0


# -- kills ------------------------------------------------------------------------------------------------------------


def test_after_kill_9_the_guard_deletes_the_endpoint(scene: Scene) -> None:
    scene.service.holds = True
    job = scene.job()
    with scene.start(job) as running:
        scene.asked()
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not scene.alive)
    scene.service.holds = False
    assert scene.run(job).code == 0
    scene.finished()
    closed = scene.workplace.query("SELECT closed_by FROM awake_window ORDER BY id")
    assert closed == [("sweep",), ("run",)]


def test_after_kill_9_during_the_creation_the_guard_waits_for_its_end(scene: Scene) -> None:
    scene.service.creating = 2.0
    with scene.start(scene.job()) as running:
        until(lambda: [endpoint.status for endpoint in scene.alive] == [CREATING])
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not scene.alive)
    until(lambda: not scene.workplace.processes())
    assert scene.workplace.query("SELECT state, closed_by FROM awake_window") == [("closed", "sweep")]


def test_after_kill_9_of_run_and_guard_the_sweep_deletes_only_that_endpoint(scene: Scene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        scene.asked()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    assert len(scene.alive) == 1
    swept = scene.workplace.run("sweep", env=scene.env)
    assert f"endpoint {NAME} read as deleted; its configuration labeller stays" in swept.err
    assert scene.alive == []
    scene.untouched()


def test_if_nobody_is_left_the_next_run_takes_the_debt_on(scene: Scene) -> None:
    scene.service.holds = True
    job = scene.job()
    with scene.start(job) as running:
        scene.asked()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.service.holds = False
    assert scene.run(job).code == 0
    scene.finished()


def test_the_sweep_leaves_what_somebody_else_has_created_under_the_same_name(scene: Scene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        scene.asked()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.service.end(scene.alive[0])
    theirs = scene.service.add("labeller", team="others")
    swept = scene.workplace.run("sweep", env=scene.env)
    assert "another endpoint has its name now, which no run created, and is left alone" in swept.err
    assert scene.alive == [theirs]
    assert scene.workplace.query("SELECT state FROM awake_window") == [("closed",)]


def test_a_killed_guard_is_replaced_and_its_successor_deletes_the_endpoint(scene: Scene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        scene.asked()
        first = guard_of(running)
        first.kill()
        until(lambda: [guard.pid for guard in guards_of(running)] not in ([], [first.pid]))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not scene.alive)
    until(lambda: not scene.workplace.processes())
    scene.untouched()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("action", ["resume", "send", "commit", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_a_failpoint_leaves_no_endpoint_and_the_next_one_finishes(
    scene: Scene, tmp_path: Path, when: str, action: str
) -> None:
    points, job = tmp_path / "points", scene.job()
    points.mkdir()
    (points / f"{when} {action}").touch()
    scene.service.lose_answers = 1  # of the creation
    with scene.start(job, ORCHESTRATOR_FAILPOINTS=str(points)) as running:
        assert running.end().code == -signal.SIGKILL
    assert not list(points.iterdir())
    until(lambda: not scene.workplace.processes())
    assert scene.alive == []
    assert scene.run(job).code == 0
    scene.finished()
    asked = [text for endpoint in scene.ours for text in endpoint.asked]
    assert len(asked) - len(set(asked)) <= CONCURRENCY


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_run_killed_at_any_moment_leaves_no_endpoint_and_repeats_only_what_was_in_flight(scene: Scene) -> None:
    luck, job, kills = random.Random(20), scene.job(), 0
    scene.service.creating = scene.service.deleting = 0.2
    for _ in range(12):
        with scene.start(job) as running:
            time.sleep(luck.uniform(0.2, 2.0))  # a random moment, not a wait for an event
            kills += running.process.poll() is None
            running.kill()
        until(lambda: not scene.workplace.processes())
        assert scene.alive == []
        scene.untouched()
    assert scene.run(job).code == 0
    scene.finished()
    asked = [text for endpoint in scene.ours for text in endpoint.asked]
    assert len(asked) - len(set(asked)) <= kills * CONCURRENCY
    assert all(endpoint.status != FAILED for endpoint in scene.ours)
