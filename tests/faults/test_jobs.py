"""Runs whose servers are Hugging Face Jobs: replicas that end in mid-run, and kills after which no job may go on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import rows, until
from tests.faults.audit import wrongs
from tests.faults.scene import guard_of, guards_of
from tests.hf_jobs_service import CANCELED, ERROR, FakeJob, JobsService, jobs_service
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Workplace

ITEMS = 60
CONCURRENCY = 6
LOOK_OFTEN = """
from orchestrator.endpoints import HuggingFaceJobEndpoint, hf_job_control
hf_job_control.LOOK_EVERY = 0.05
"""


class JobScene:
    """A workplace with a job at the endpoint acme/labeller, beside jobs of somebody else."""

    def __init__(self, workplace: Workplace, service: JobsService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = {"HF_TOKEN": service.token, "HF_ENDPOINT": service.url, "WEIGHTS_KEY": "key-of-the-weights"}
        self.foreign = [service.add(name="labeller"), service.add(**{"orchestrator-endpoint": "another"})]
        workplace.write_rows(rows(range(ITEMS)))

    def job(self, options: str = "", policy: str = "") -> Path:
        settings = f"image='acme/server', command=['serve'], flavor='cpu-basic', secrets=['WEIGHTS_KEY'], {options}"
        return self.workplace.job(
            prelude=LOOK_OFTEN,
            endpoint=f"HuggingFaceJobEndpoint('acme/labeller', {settings})",
            policy=f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), {policy}",
        )

    def start(self, job: Path, **env: str) -> Any:
        return self.workplace.start("run", "--quiet", job, env=self.env | env)

    @property
    def ours(self) -> list[FakeJob]:
        return [job for job in self.service.jobs.values() if job not in self.foreign]

    @property
    def alive(self) -> list[FakeJob]:
        return [job for job in self.service.alive() if job not in self.foreign]

    def all_asked(self, count: int) -> bool:
        """Whether so many of our jobs are running, and hold back a request each."""
        return len(self.alive) == count and all(job.asked for job in self.alive)

    def finished(self) -> None:
        """Check that every item has its answer, no job goes on, and nothing of anybody else was touched."""
        until(lambda: not self.workplace.processes())
        assert wrongs(self.workplace) == []
        found = {row["id"]: row["output"] for row in self.workplace.outputs()}
        assert found == {row["id"]: [{"label": answer_to(str(row["text"]))}] for row in rows(range(ITEMS))}
        assert self.alive == []
        assert all(job.alive for job in self.foreign)
        assert b"key-of-the-weights" not in self.workplace.ledger.read_bytes()


@pytest.fixture
def scene(workplace: Workplace) -> Iterator[JobScene]:
    with jobs_service() as service:
        yield JobScene(workplace, service)


def test_replicas_share_the_items_and_the_ledger_has_the_bill_of_the_provider(scene: JobScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job("replicas=3")) as running:
        until(lambda: scene.all_asked(3))
        scene.service.holds = False
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    assert [job.stage for job in scene.ours] == [CANCELED] * 3
    ((seconds, dollars, price),) = scene.workplace.query(
        "SELECT billed_seconds, billed_dollars, price_per_hour FROM awake_window"
    )
    assert seconds == sum(int(job.billed) for job in scene.ours)
    assert dollars == pytest.approx(seconds * price / 3 / 3600)
    windows = {job.spec["labels"]["orchestrator-window"] for job in scene.ours}
    assert [window.partition("-")[0] for window in windows] == ["1"]


def test_a_run_begins_with_the_first_replica_that_is_up(scene: JobScene) -> None:
    scene.service.stuck_after = len(scene.foreign) + 1
    with scene.start(scene.job("replicas=3")) as running:
        assert running.end().code == 0
    scene.finished()
    assert [len(job.asked) for job in scene.ours] == [ITEMS, 0, 0]


def test_a_replica_that_ends_in_mid_run_is_replaced_and_its_items_lose_no_attempt(scene: JobScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job("replicas=2")) as running:
        until(lambda: scene.all_asked(2))
        first, second = scene.alive
        scene.service.end(first, ERROR, "Job timeout")
        until(lambda: scene.all_asked(2))
        (third,) = [job for job in scene.alive if job is not second]
        assert third.spec["labels"] == first.spec["labels"]
        scene.service.holds = False
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    assert [job.stage for job in scene.ours] == [ERROR, CANCELED, CANCELED]
    assert scene.workplace.count("attempt") == 0
    asked = [text for job in scene.ours for text in job.asked]
    assert len(asked) - len(set(asked)) <= CONCURRENCY


def test_when_a_job_times_out_in_mid_run_the_next_one_takes_its_place(scene: JobScene) -> None:
    scene.service.times_out_after = 25
    with scene.start(scene.job("timeout='1h'")) as running:
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    assert [job.stage for job in scene.ours] == [ERROR, ERROR, CANCELED]
    asked = [text for job in scene.ours for text in job.asked]
    assert len(asked) - len(set(asked)) <= 2 * CONCURRENCY  # what was in flight when a job ended


@pytest.mark.parametrize("replicas", [1, 2])
def test_jobs_that_somebody_cancels_are_not_started_again(scene: JobScene, replicas: int) -> None:
    scene.service.holds = True
    with scene.start(scene.job(f"replicas={replicas}")) as running:
        until(lambda: scene.all_asked(replicas))
        for job in scene.alive:
            scene.service.end(job, CANCELED)
        scene.service.holds = False
        ended = running.end()
    assert ended.code == 4
    assert "was paused while it was used" in ended.err
    assert (len(scene.ours), scene.alive) == (replicas, [])


@pytest.mark.parametrize(
    ("options", "policy", "least", "most"),
    [
        ("timeout='90m'", "", 5400, 5400),
        ("", "", 4 * 3600, 4 * 3600),
        ("", "max_awake=600.0", 600, 800),
        ("price_per_hour=3.6, replicas=2", "max_cost=1.0", 500, 700),  # two cost a dollar in 500 s
        ("", "deadline='30m'", 5000, 5400),
    ],
)
def test_the_provider_ends_each_job_when_neither_budget_nor_deadline_can_need_it(
    scene: JobScene, options: str, policy: str, least: float, most: float
) -> None:
    with scene.start(scene.job(options, policy)) as running:
        assert running.end().code == 0
    assert all(least <= job.spec["timeoutSeconds"] <= most for job in scene.ours)


def test_the_provider_ends_the_jobs_of_a_submitted_run_an_hour_after_the_deadline_it_was_submitted_with(
    scene: JobScene,
) -> None:
    job = scene.job(policy="deadline='10h'")
    assert scene.workplace.run("submit", job, "--deadline", "30m", env=scene.env).code == 0
    with scene.workplace.start("serve", env=scene.env) as running:
        until(lambda: scene.workplace.count("run", "delivered_at IS NOT NULL"))
        running.send(signal.SIGTERM)
        assert running.end().code == 0
    assert all(5000 <= job.spec["timeoutSeconds"] <= 5400 for job in scene.ours)
    scene.finished()


def test_two_runs_share_the_jobs_and_only_the_last_one_cancels_them(scene: JobScene) -> None:
    scene.service.holds = True
    first = scene.job("replicas=2")
    second = scene.workplace.job(
        "second.py",
        prelude=LOOK_OFTEN,
        name=repr("second"),
        request="'again: {text}'",
        endpoint="HuggingFaceJobEndpoint('acme/labeller', image='acme/server', command=['serve'], "
        "flavor='cpu-basic', secrets=['WEIGHTS_KEY'], replicas=2)",
        sink=f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})",
    )
    with scene.start(first) as one, scene.start(second) as two:
        until(lambda: scene.all_asked(2) and any("again" in text for job in scene.alive for text in job.asked))
        one.send(signal.SIGINT)
        one.send(signal.SIGINT)
        assert one.end().code == 130
        assert len(scene.alive) == 2
        scene.service.holds = False
        assert two.end().code == 0
    assert (len(scene.ours), scene.alive) == (2, [])
    assert scene.workplace.query("SELECT state, closed_by FROM awake_window") == [("closed", "run")]


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2])
def test_after_kill_9_the_guard_cancels_every_job(scene: JobScene, replicas: int) -> None:
    scene.service.holds = True
    job = scene.job(f"replicas={replicas}")
    with scene.start(job) as running:
        until(lambda: scene.all_asked(replicas))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not scene.alive)
    scene.service.holds = False
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
    bills = scene.workplace.query("SELECT closed_by, billed_seconds FROM awake_window ORDER BY id")
    assert [by for by, _ in bills] == ["sweep", "run"]
    assert all(seconds is not None for _, seconds in bills)


def test_after_kill_9_of_run_and_guard_the_sweep_cancels_only_jobs_of_that_endpoint(scene: JobScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job("replicas=2")) as running:
        until(lambda: scene.all_asked(2))
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    assert len(scene.alive) == 2
    swept = scene.workplace.run("sweep", env=scene.env)
    assert "endpoint acme/labeller read as job" in swept.err
    assert scene.alive == []
    assert all(job.alive for job in scene.foreign)
    assert all(job.spec["timeoutSeconds"] for job in scene.ours)  # without a sweep, the provider would have ended them


def test_if_nobody_is_left_the_provider_ends_the_jobs_and_the_next_run_closes_the_receipt(scene: JobScene) -> None:
    scene.service.holds = True
    job = scene.job("replicas=2")
    with scene.start(job) as running:
        until(lambda: scene.all_asked(2))
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    for one in scene.alive:
        scene.service.end(one, ERROR, "Job timeout")
    ended = list(scene.ours)
    scene.service.holds = False
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
    assert [one.stage for one in scene.ours] == [ERROR, ERROR, CANCELED, CANCELED]
    assert all(one.asked for one in ended)


def test_a_killed_guard_is_replaced_and_its_successor_cancels_every_job(scene: JobScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job("replicas=2")) as running:
        until(lambda: scene.all_asked(2))
        first = guard_of(running)
        first.kill()
        until(lambda: [guard.pid for guard in guards_of(running)] not in ([], [first.pid]))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not scene.alive)
    until(lambda: not scene.workplace.processes())
    assert all(job.alive for job in scene.foreign)


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("action", ["resume", "send", "commit", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_a_failpoint_leaves_no_job_and_the_next_one_finishes(
    scene: JobScene, tmp_path: Path, when: str, action: str
) -> None:
    points, job = tmp_path / "points", scene.job("replicas=2")
    points.mkdir()
    (points / f"{when} {action}").touch()
    with scene.start(job, ORCHESTRATOR_FAILPOINTS=str(points)) as running:
        assert running.end().code == -signal.SIGKILL
    assert not list(points.iterdir())
    until(lambda: not scene.alive)
    until(lambda: not scene.workplace.processes())
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
    asked = [text for job in scene.ours for text in job.asked]
    assert len(asked) - len(set(asked)) <= 2 * CONCURRENCY  # a replica that joins gets its share while others have more


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_run_killed_when_an_answer_of_the_provider_was_lost_leaves_no_job(scene: JobScene, tmp_path: Path) -> None:
    points, job = tmp_path / "points", scene.job("replicas=2")
    points.mkdir()
    (points / "after resume").touch()
    scene.service.lose_answers = 2
    with scene.start(job, ORCHESTRATOR_FAILPOINTS=str(points)) as running:
        assert running.end().code == -signal.SIGKILL
    until(lambda: not scene.alive)
    assert len(scene.ours) == 2
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
