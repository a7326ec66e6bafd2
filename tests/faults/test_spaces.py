"""Runs whose endpoint is a Hugging Face Space: whatever dies, the Space is paused, and no other Space is touched."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import rows, until
from tests.faults.audit import wrongs
from tests.faults.scene import guard_of, guards_of
from tests.hf_spaces_service import PAUSED, RUNNING, SLEEPING, SpacesService, spaces_service
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Workplace

ITEMS = 60
CONCURRENCY = 6
LOOK_OFTEN = """
from orchestrator.endpoints import HuggingFaceSpaceEndpoint, hf_space_control
hf_space_control.LOOK_EVERY = 0.05
"""


class SpaceScene:
    """A workplace with a job at the Space acme/labeller, beside Spaces of which one runs and one sleeps."""

    def __init__(self, workplace: Workplace, service: SpacesService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = {"HF_TOKEN": service.token, "HF_ENDPOINT": service.url}
        self.space = service.add("labeller")
        self.foreign = [service.add("running", stage=RUNNING), service.add("sleeping", stage=SLEEPING)]
        workplace.write_rows(rows(range(ITEMS)))

    def job(self, file: str = "job.py", options: str = "", policy: str = "", **code: str) -> Path:
        return self.workplace.job(
            file,
            prelude=LOOK_OFTEN,
            endpoint=f"HuggingFaceSpaceEndpoint('acme/labeller', {options})",
            policy=f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), {policy}",
            **code,
        )

    def start(self, job: Path, **env: str) -> Any:
        return self.workplace.start("run", "--quiet", job, env=self.env | env)

    def asked(self) -> bool:
        """Whether the app holds back a request."""
        return bool(self.space.asked)

    def untouched(self) -> bool:
        """Whether the Spaces of others are as they were, and no call named them."""
        named = [call for call in self.service.calls if "/running" in call or "/sleeping" in call]
        return [space.stage for space in self.foreign] == [RUNNING, SLEEPING] and not named

    def finished(self) -> None:
        """Check that every item has its answer, and the Space is paused and owes nothing."""
        until(lambda: not self.workplace.processes())
        assert wrongs(self.workplace) == []
        found = {row["id"]: row["output"] for row in self.workplace.outputs()}
        assert found == {row["id"]: {"label": answer_to(str(row["text"]))} for row in rows(range(ITEMS))}
        assert (self.space.stage, self.untouched()) == (PAUSED, True)
        assert self.workplace.count("awake_window", "state <> 'closed'") == 0
        assert self.service.token.encode() not in self.workplace.ledger.read_bytes()


@pytest.fixture
def scene(workplace: Workplace) -> Iterator[SpaceScene]:
    with spaces_service() as service:
        yield SpaceScene(workplace, service)


def test_a_run_restarts_the_space_once_and_the_receipt_covers_what_the_provider_bills(scene: SpaceScene) -> None:
    with scene.start(scene.job()) as running:
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    assert (scene.space.restarts, scene.space.sleep, sorted(scene.space.asked)) == (
        1,
        900,
        sorted(str(row["text"]) for row in rows(range(ITEMS))),
    )
    ((price, seconds),) = scene.workplace.query(
        "SELECT price_per_hour, (SELECT cold_start + work + idle + pausing FROM hold) FROM awake_window"
    )
    assert price == pytest.approx(0.4)
    assert seconds >= scene.space.billed > 0


@pytest.mark.parametrize(("options", "found", "left"), [("", RUNNING, RUNNING), ("pause='always'", RUNNING, PAUSED)])
def test_a_space_that_was_running_is_left_as_the_job_says(
    scene: SpaceScene, options: str, found: str, left: str
) -> None:
    scene.space.go(found)
    with scene.start(scene.job(options=options)) as running:
        assert running.end().code == 0
    assert (scene.space.restarts, scene.space.stage) == (0, left)


def test_a_space_that_was_asleep_is_paused_because_nothing_puts_it_to_sleep(scene: SpaceScene) -> None:
    scene.space.go(SLEEPING)
    with scene.start(scene.job()) as running:
        assert running.end().code == 0
    scene.finished()


def test_a_space_that_falls_asleep_in_mid_run_is_woken_again_and_no_item_loses_an_attempt(scene: SpaceScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        until(scene.asked)
        scene.space.go(SLEEPING)
        scene.service.holds = False
        ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    scene.finished()
    assert (scene.space.restarts, scene.workplace.count("attempt")) == (2, 0)


def test_a_space_that_somebody_pauses_is_not_restarted(scene: SpaceScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        until(scene.asked)
        scene.space.go(PAUSED)
        ended = running.end()
    assert (ended.code, scene.space.restarts) == (4, 1)
    assert "endpoint spaces/acme/labeller was paused while it was used" in ended.err


def test_an_app_that_ends_in_mid_run_stops_the_run_with_the_reason_and_is_paused(scene: SpaceScene) -> None:
    scene.service.dies_after = 20
    with scene.start(scene.job()) as running:
        ended = running.end()
    assert ended.code != 0
    assert "RUNTIME_ERROR on t4-small: Exit code: 137. Reason: out of memory" in ended.err
    assert scene.space.stage == PAUSED
    scene.service.dies_after = None
    with scene.start(scene.job()) as running:
        assert running.end().code == 0
    scene.finished()


def test_a_space_that_cannot_be_built_is_paused_and_the_run_says_why(scene: SpaceScene) -> None:
    scene.service.fails = ("BUILD_ERROR", "exit code: 1")
    with scene.start(scene.job()) as running:
        ended = running.end()
    assert ended.code != 0
    assert "endpoint spaces/acme/labeller failed: BUILD_ERROR on t4-small: exit code: 1" in ended.err
    assert (scene.space.stage, scene.space.asked) == (PAUSED, [])


def test_two_runs_share_the_space_and_only_the_last_one_pauses_it(scene: SpaceScene) -> None:
    scene.service.holds = True
    sink = f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})"
    first, second = scene.job(), scene.job("second.py", name=repr("second"), request="'again: {text}'", sink=sink)
    with scene.start(first) as one, scene.start(second) as two:
        until(lambda: any("again" in text for text in scene.space.asked))
        until(lambda: any("again" not in text for text in scene.space.asked))
        one.send(signal.SIGINT)
        one.send(signal.SIGINT)
        assert one.end().code == 130
        assert scene.space.stage == RUNNING
        scene.service.holds = False
        assert two.end().code == 0
    assert (scene.space.restarts, scene.space.stage) == (1, PAUSED)
    assert scene.workplace.query("SELECT state, closed_by FROM awake_window") == [("closed", "run")]


# -- the five safeguards ----------------------------------------------------------------------------------------------


def test_after_kill_9_the_guard_pauses_the_space(scene: SpaceScene) -> None:
    scene.service.holds = True
    job = scene.job()
    with scene.start(job) as running:
        until(scene.asked)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.space.stage == PAUSED)
    scene.service.holds = False
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
    assert [by for (by,) in scene.workplace.query("SELECT closed_by FROM awake_window ORDER BY id")] == ["sweep", "run"]


def test_after_kill_9_of_run_and_guard_the_sweep_pauses_only_that_space(scene: SpaceScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        until(scene.asked)
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    assert (scene.space.stage, scene.space.sleep) == (RUNNING, 900)  # without a sweep, it would fall asleep
    swept = scene.workplace.run("sweep", env=scene.env)
    assert "endpoint spaces/acme/labeller read as PAUSED on t4-small" in swept.err
    assert (scene.space.stage, scene.untouched()) == (PAUSED, True)


def test_if_nobody_is_left_the_provider_puts_it_to_sleep_and_the_next_run_settles_the_debt(scene: SpaceScene) -> None:
    scene.service.holds = True
    job = scene.job()
    with scene.start(job) as running:
        until(scene.asked)
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.space.go(SLEEPING)
    scene.service.holds = False
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()


def test_a_killed_guard_is_replaced_and_its_successor_pauses_the_space(scene: SpaceScene) -> None:
    scene.service.holds = True
    with scene.start(scene.job()) as running:
        until(scene.asked)
        first = guard_of(running)
        first.kill()
        until(lambda: [guard.pid for guard in guards_of(running)] not in ([], [first.pid]))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.space.stage == PAUSED)
    until(lambda: not scene.workplace.processes())
    assert scene.untouched()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("action", ["resume", "send", "commit", "pause"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_a_failpoint_leaves_the_space_paused_and_the_next_one_finishes(
    scene: SpaceScene, tmp_path: Path, when: str, action: str
) -> None:
    points, job = tmp_path / "points", scene.job()
    points.mkdir()
    (points / f"{when} {action}").touch()
    with scene.start(job, ORCHESTRATOR_FAILPOINTS=str(points)) as running:
        assert running.end().code == -signal.SIGKILL
    assert not list(points.iterdir())
    until(lambda: scene.space.stage == PAUSED)
    until(lambda: not scene.workplace.processes())
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()
    assert len(scene.space.asked) - len(set(scene.space.asked)) <= CONCURRENCY


def test_a_run_killed_when_the_answer_to_a_restart_was_lost_leaves_the_space_paused(
    scene: SpaceScene, tmp_path: Path
) -> None:
    points, job = tmp_path / "points", scene.job()
    points.mkdir()
    (points / "after resume").touch()
    scene.service.lose_answers = 1
    with scene.start(job, ORCHESTRATOR_FAILPOINTS=str(points)) as running:
        assert running.end().code == -signal.SIGKILL
    until(lambda: scene.space.stage == PAUSED)
    assert scene.space.restarts == 1
    assert scene.workplace.run("run", "--quiet", job, env=scene.env).code == 0
    scene.finished()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_run_that_is_killed_again_and_again_asks_nothing_twice_and_leaves_the_space_paused(scene: SpaceScene) -> None:
    chance, kills, job = random.Random(7), 0, scene.job()
    while True:
        scene.service.holds = kills < 3  # the first ones die while requests are held back
        before = len(scene.space.asked)
        with scene.start(job) as running:
            if kills < 3:
                until(lambda before=before: len(scene.space.asked) > before)  # type: ignore[misc]  # bound at once
                scene.service.holds = chance.random() < 0.5
                os.kill(running.pid, signal.SIGKILL)
                kills += 1
                until(lambda: scene.space.stage == PAUSED)
                continue
            assert running.end().code == 0
            break
    scene.finished()
    assert len(scene.space.asked) - len(set(scene.space.asked)) <= 3 * CONCURRENCY
