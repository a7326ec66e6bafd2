"""Windows, daily budgets, and incremental jobs: real processes, a real service."""

from __future__ import annotations

import re
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.domain.budget import day_of
from tests.commands import rows, until
from tests.faults.scene import ANSWERED, CONCURRENCY, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scene import Scene

# seconds of today that must have passed, because others have spent in them
begun = pytest.mark.skipif(time.time() - day_of(time.time())[0] < 300, reason="the day of UTC has only just begun")


def window(opens_in: float, closes_in: float) -> str:
    """Return a window in UTC that opens and closes in so many seconds."""
    now = time.time()
    opens, closes = (datetime.fromtimestamp(now + seconds, UTC) for seconds in (opens_in, closes_in))
    return f"{opens:%H:%M:%S}-{closes:%H:%M:%S}"


# -- windows ----------------------------------------------------------------------------------------------------------


def test_at_the_end_of_its_window_a_run_pauses_and_continues_in_the_next(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    # relative to the moment at which the job file is read, however long the process takes to start
    clock = "from datetime import UTC, datetime, timedelta\n"
    clock += "opens, closes = (f'{datetime.now(UTC) + timedelta(seconds=s):%H:%M:%S}' for s in (-60, 6))"
    policy = f"concurrency={CONCURRENCY}, grace=0.2, window="
    said = scene.run("run", scene.job(prelude=clock, policy=f"{policy}f'{{opens}}-{{closes}}'"), code=4)
    assert "is over; run the same command again: it continues at" in said
    assert scene.left_paused
    assert scene.windows == [("closed", 1, "run")]
    answered = scene.service.endpoint("batch").answered.total()
    assert answered == ANSWERED == scene.workplace.count("result")
    scene.finishes(scene.job(policy=f"{policy}{window(-60, 600)!r}"))
    assert scene.service.endpoint("batch").answered.total() == ITEMS


def test_a_run_outside_its_window_wakes_nothing_and_can_be_stopped_while_waiting(scene: Scene) -> None:
    job = scene.job(policy=f"window={window(3600, 7200)!r}")
    with scene.start(job) as running:
        until(lambda: scene.workplace.query("SELECT 1 FROM run WHERE state = 'open'"))
        until(lambda: running.catches(signal.SIGINT))
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert not scene.service.calls("resume")
    assert scene.windows == []


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_processes_share_one_daily_budget(scene: Scene) -> None:
    scene.service.add("other")
    scene.service.behave(hold_after=ANSWERED)
    config = scene.workplace.folder / "config.toml"
    config.write_text("[budget]\nmax_awake_per_day = 8.0\n")
    scene.env["ORCHESTRATOR_CONFIG"] = str(config)
    first = scene.job(policy=f"concurrency={CONCURRENCY}, grace=0.1")
    second = scene.workplace.job(
        "second.py",
        name="'second'",
        prelude="from orchestrator.endpoints import HuggingFaceEndpoint",
        endpoint="HuggingFaceEndpoint('acme/other')",
        sink=f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})",
        policy=f"concurrency={CONCURRENCY}, grace=0.1",
    )
    with scene.start(first) as one, scene.start(second) as two:
        ends = [running.end() for running in (one, two)]
    assert [ended.code for ended in ends] == [4, 4], ends
    for ended in ends:
        assert re.search(r"the budget of all jobs for the day is spent \(\d+ s awake", ended.err), ended.err
        assert "run the same command again after" in ended.err
    assert scene.left_paused
    assert scene.service.endpoint("other").state == "paused"
    spent = [
        closed - resumed for closed, resumed in scene.workplace.query("SELECT closed_at, resumed_at FROM awake_window")
    ]
    assert len(spent) == 2
    assert sum(spent) > 8.0 - 0.1
    assert min(spent) < 8.0  # each of them would be awake for longer if it had the budget for itself
    resumed = len(scene.service.calls("/resume"))
    assert "is spent" in scene.run("run", first, code=4)
    assert len(scene.service.calls("/resume")) == resumed  # nothing is woken again today


@begun
def test_the_daily_budget_of_a_job_survives_kill_9(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job(policy=f"concurrency={CONCURRENCY}, grace=0.1, max_cost_per_day=1.0")
    with scene.start(job) as running:
        scene.held_back()
        running.kill()
        until(lambda: scene.left_paused)
    scene.workplace.change("UPDATE awake_window SET price_per_hour = 1000.0, resumed_at = closed_at - 100")
    scene.workplace.change("UPDATE hold SET since = (SELECT resumed_at FROM awake_window WHERE id = window_id)")
    said = scene.run("run", job, code=4)
    assert "the job's budget for the day is spent (100 s awake, $27.78); run the same command again after" in said
    assert len(scene.service.calls("/resume")) == 1


# -- incremental ------------------------------------------------------------------------------------------------------


def test_each_night_takes_new_rows_and_wakes_nothing_if_there_are_none(scene: Scene) -> None:
    scene.service.behave()
    folder = scene.workplace.folder
    job = scene.job(
        source=f"JsonlSource({str(folder / 'in' / '*.jsonl')!r}, id='id')",
        sink=f"JsonlSink({str(folder / 'out' / '{date}-{run}.jsonl')!r}, keep=['text'])",
    )
    incremental = ("--set", "incremental=True")
    nothing = scene.run("run", *incremental, job)
    assert "plan: 0 new" in nothing
    assert "output: none, as nothing was new" in nothing
    assert not scene.service.calls("resume")
    assert not (folder / "out").exists()
    (folder / "in").mkdir()
    for night, numbers in enumerate([range(30), range(20, 40)]):
        arrives(folder / "in" / f"{night}.jsonl", rows(numbers))
        scene.run("run", *incremental, job)
    assert scene.workplace.run("plan", *incremental, job).out == "0 new, 0 edited, 0 reused, 0 to retry, 50 left out\n"
    ended = scene.workplace.run("run", "--json", *incremental, job, env=scene.env)
    assert (ended.code, ended.json["output"], ended.json["plan"]["left_out"]) == (0, None, 50)
    assert sorted(scene.service.endpoint("batch").asked.values()) == [1] * 40
    assert len(scene.service.calls("POST /v2/.*/resume")) == 2
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    files = {path.name: [record["text"] for record in read(path)] for path in (folder / "out").glob("*[0-9].jsonl")}
    assert files == {
        f"{today}-2.jsonl": [f"text of {number}" for number in range(30)],
        f"{today}-3.jsonl": [f"text of {number}" for number in range(30, 40)],
    }
    assert len(list((folder / "out").glob("*.manifest.json"))) == 2
    assert scene.left_paused


def test_retry_asks_the_discarded_items_of_a_night_again(scene: Scene) -> None:
    scene.service.behave(statuses={"text of 7": 400})
    folder = scene.workplace.folder
    sink = f"JsonlSink({str(folder / '{run}.jsonl')!r})"
    job = scene.job(sink=sink)
    incremental = ("--set", "incremental=True")
    scene.run("run", *incremental, job, code=3)
    scene.run("run", *incremental, job)  # a night without new rows, in between
    scene.service.behave()
    assert "1 discarded items of run 1 are available again" in scene.run("retry", "1")
    found = {record["id"]: record["output"] for path in folder.glob("[0-9].jsonl") for record in read(path)}
    assert found["i7"] == [answer_to("text of 7")]
    assert len(found) == ITEMS
    asked = scene.service.endpoint("batch").asked
    again = {text for text, times in asked.items() if times > 1}
    assert "text of 7" in again
    assert len(again) <= 2  # and the request that showed whether the endpoint was down
    assert "40 left out" in scene.run("run", *incremental, job)


def arrives(path: Path, found: list[dict[str, object]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in found))


def read(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
