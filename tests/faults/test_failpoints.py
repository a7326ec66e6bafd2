"""Killed at every failpoint, by a real kill: the system finishes, pauses, and does nothing twice.

Each action is interrupted before and after: in the transaction that is about to be committed or ahead of the call, and
right after it. All processes of a test can be killed, including the sweep of the guard; each point kills one of them.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator.domain.failpoints import POINTS
from tests.commands import rows, until
from tests.faults.audit import wrongs
from tests.faults.daemons import ENDPOINT, about, all_finished, answers, job, queue, serving
from tests.faults.scene import ANSWERED, CONCURRENCY, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Running
    from tests.faults.scene import Scene

pytestmark = pytest.mark.unmeasured
WAITS = ("before", "after")
OF_A_PERSON = ("submit",)  # tests/faults/test_submitting.py
OF_A_BATCH = ("create batch", "begin batch", "end batch")  # tests/faults/test_batches.py
OF_THE_DAEMON = ("slot", "claim")
EARLY = ("take", "lease", "resume", "rename", "pause")  # a single run reaches these by itself
MIDWAY = ("send", "commit")  # the same, but more useful while many requests are in flight
BY_ORDER = ("put back", "leave")


class Failpoints:
    """A folder of armed failpoints: the file of a point is deleted when it has killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.env = {"ORCHESTRATOR_FAILPOINTS": str(folder)}

    def arm(self, *points: str) -> None:
        for point in points:
            (self.folder / point).touch()

    def have_killed(self) -> None:
        until(lambda: not list(self.folder.iterdir()))

    @contextmanager
    def serving(self, scene: Scene) -> Iterator[Running]:
        with serving(scene, env=self.env) as daemon:
            yield daemon


@pytest.fixture
def points(tmp_path: Path) -> Failpoints:
    return Failpoints(tmp_path / "points")


def done_once(scene: Scene, kills: int = 2) -> None:
    """Check that all is done, and nothing was done twice except what was in flight at a kill."""
    until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())
    assert wrongs(scene.workplace) == []
    assert answers(scene.workplace, "nightly") == [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]
    assert len(scene.service.calls("POST /data/")) <= ITEMS + kills * CONCURRENCY


def both(action: str) -> list[str]:
    return [f"{when} {action}" for when in WAITS]


def test_every_failpoint_is_listed() -> None:
    actions = (*OF_A_PERSON, *OF_A_BATCH, *OF_THE_DAEMON, *EARLY, *MIDWAY, *BY_ORDER)
    enumerated = [point for action in actions for point in both(action)]
    assert sorted(enumerated) == sorted(POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("action", EARLY)
def test_a_run_killed_at_a_failpoint_is_finished_by_other_processes(
    scene: Scene, points: Failpoints, action: str
) -> None:
    points.arm(*both(action))
    scene.service.behave()
    queue(scene, job(scene, "nightly"))
    with points.serving(scene):
        points.have_killed()
        all_finished(scene)
    done_once(scene)


@pytest.mark.slow
@pytest.mark.parametrize("action", MIDWAY)
def test_a_run_killed_with_requests_in_flight_is_finished_by_other_processes(
    scene: Scene, points: Failpoints, action: str
) -> None:
    scene.service.behave(hold_after=ANSWERED)
    queue(scene, job(scene, "nightly"))
    with points.serving(scene):
        scene.held_back()
        points.arm(*both(action))
        scene.service.behave()
        points.have_killed()
        all_finished(scene)
    done_once(scene)


@pytest.mark.slow
def test_a_daemon_killed_around_its_claim_loses_no_run(scene: Scene, points: Failpoints) -> None:
    scene.service.behave()
    queue(scene, job(scene, "nightly"))
    for point in both("claim"):
        points.arm(point)
        with ExitStack() as stack:
            daemon = stack.enter_context(points.serving(scene))
            daemon.process.wait(120)
            points.have_killed()
    with points.serving(scene):
        all_finished(scene)
    done_once(scene)
    assert len(scene.service.calls("POST /data/")) == ITEMS


@pytest.mark.slow
def test_a_daemon_killed_around_a_slot_decides_about_it_once(scene: Scene, points: Failpoints) -> None:
    scene.service.behave()
    path = job(scene, "nightly")
    add_schedule(scene, path)
    for point in both("slot"):
        points.arm(point)
        with points.serving(scene) as daemon:
            daemon.process.wait(120)
            points.have_killed()
    with points.serving(scene):
        until(lambda: scene.workplace.count("run") == 1)
        all_finished(scene)
    done_once(scene)
    assert scene.workplace.query("SELECT outcome, run_id FROM slot") == [("fired", 1)]
    assert len(scene.service.calls("POST /data/")) == ITEMS


def add_schedule(scene: Scene, path: Path) -> None:
    """Add a schedule that fires once a year, and now."""
    scene.workplace.make_ledger()
    texts = [path.stem, str(path), orjson.dumps(about(path)).decode(), orjson.dumps([ENDPOINT]).decode()]
    scene.workplace.change(
        "INSERT INTO schedule (job, jobfile, about, endpoints, source, cron, tz, overlap, catch_up, catch_up_window, "
        "jitter, next_slot) VALUES (?, ?, ?, ?, 'command', '0 0 1 1 *', 'UTC', 'skip', 'latest', 3600, 0, ?)",
        [*texts, int(time.time()) - 1],
    )


@pytest.mark.slow
def test_a_process_killed_while_requeueing_its_run_leaves_it_in_the_queue(scene: Scene, points: Failpoints) -> None:
    scene.service.behave()
    scene.service.script("batch", pending=3600.0)
    queue(scene, job(scene, "nightly", options="startup_timeout=2.0"))
    points.arm(*both("put back"))
    with points.serving(scene):
        points.have_killed()
        requeue = "holder IS NULL AND due_at > unixepoch() AND why LIKE 'its process was killed by%'"
        until(lambda: scene.workplace.count("run", requeue))
        until(lambda: scene.left_paused)
        scene.service.script("batch", pending=0.05)
        scene.workplace.change("UPDATE run SET due_at = 0")  # half a minute later
        all_finished(scene)
    done_once(scene)


@pytest.mark.slow
def test_a_process_killed_while_giving_up_its_run_gives_it_up(scene: Scene, points: Failpoints) -> None:
    scene.service.behave()
    scene.service.script("batch", fails="the model does not load")
    path = job(scene, "nightly")
    queue(scene, path)
    with points.serving(scene):
        points.arm(*both("leave"))
        points.have_killed()
        until(lambda: scene.workplace.query("SELECT state, due_at, holder FROM run") == [("failed", None, None)])
        until(lambda: scene.service.endpoint("batch").state == "paused")
        scene.service.script("batch", fails=None)
        queue(scene, path)
        all_finished(scene)
    done_once(scene)
