from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.queue import Submission
from orchestrator.domain.schedule import Cron, Decision, decide, delay
from orchestrator.domain.timetable import Declared, Fired, Waits, slot_lines
from orchestrator.engine.daemon.schedules import fire_due
from orchestrator.store import schedules

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store

HOUR = 3600.0
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
HOURLY = Cron("0 * * * *", overlap="allow")
IN_KOLKATA = replace(HOURLY, tz="Asia/Kolkata")


def declared(
    cron: Cron = HOURLY,
    job: str = "talk",
    file: str = "/jobs/talk.py",
    priority: int = 0,
    deadline: str | None = None,
    after: Waits = (),
) -> Declared:
    about: dict[str, object] = {"jobfile": file, "folder": "/jobs", "overrides": [], "limit": None}
    return Declared(job, about, ["a", "b"], cron, priority, deadline, after)


async def rows(store: Store, query: str) -> list[Any]:
    async with store.database.read() as connection:
        return list((await connection.execute(query)).all())


async def change(store: Store, statement: str, **values: object) -> None:
    async with store.database.write() as connection:
        await connection.execute(statement, values)


async def decisions(store: Store) -> list[tuple[float, str]]:
    """Return hours since midnight and the decision about each slot."""
    return [
        ((row.slot - MIDNIGHT) / HOUR, row.outcome) for row in await rows(store, "SELECT * FROM slot ORDER BY slot")
    ]


async def begun(store: Store, run_id: int) -> None:
    """Let a process execute the run."""
    me = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=60.0)
    await change(store, "UPDATE run SET holder = :me WHERE id = :run", me=me, run=run_id)


async def finished(store: Store, run_id: int) -> None:
    await change(
        store,
        "UPDATE run SET state = 'finished', finished_at = 1, due_at = NULL, holder = NULL WHERE id = :run",
        run=run_id,
    )


async def fire_one(store: Store, now: float) -> Fired:
    (fired,) = await fire_due(store, now)
    return fired


# -- once for each slot -----------------------------------------------------------------------------------------------


async def test_a_due_slot_queues_one_run_and_is_decided_once(store: Store) -> None:
    await store.schedules.put(declared(priority=3, deadline="8h"), "file", MIDNIGHT)
    assert await fire_due(store, MIDNIGHT + HOUR - 1) == []
    (fired,) = await fire_due(store, MIDNIGHT + HOUR)
    assert (fired.job, fired.slot, fired.decision) == ("talk", MIDNIGHT + HOUR, Decision.FIRED)
    assert await fire_due(store, MIDNIGHT + HOUR + 1) == []
    (run,) = await rows(store, "SELECT * FROM run")
    assert (run.id, run.due_at, run.priority, run.deadline) == (fired.run_id, MIDNIGHT + HOUR, 3, MIDNIGHT + 9 * HOUR)
    assert '"jobfile":"/jobs/talk.py"' in run.spec
    assert [row.endpoint for row in await rows(store, "SELECT endpoint FROM uses ORDER BY endpoint")] == ["a", "b"]


async def test_a_fired_run_keeps_the_spec_of_its_job_with_the_order_of_keys_and_all_digits(store: Store) -> None:
    spec = {"request": {"b": "{text}", "a": 2**70}}
    await store.schedules.put(replace(declared(), about={"jobfile": "/jobs/talk.py", "spec": spec}), "file", MIDNIGHT)
    (fired,) = await fire_due(store, MIDNIGHT + HOUR)
    run = await store.runs.find(str(fired.run_id))
    assert json.dumps(run.spec.about["spec"]) == json.dumps(spec)


async def test_exactly_one_of_many_daemons_decides_about_a_slot(store: Store) -> None:
    await store.schedules.put(declared(replace(HOURLY, catch_up="all", catch_up_window="1d")), "file", MIDNIGHT)
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(fire_due, store, MIDNIGHT + 5 * HOUR)
    assert await decisions(store) == [(number, "fired") for number in range(1, 6)]
    assert len(await rows(store, "SELECT * FROM run")) == 5


async def test_a_daemon_with_an_outdated_schedule_decides_nothing(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    (read,) = await store.schedules.due(MIDNIGHT + HOUR)
    due = decide(HOURLY, MIDNIGHT + HOUR, MIDNIGHT + HOUR)
    await store.schedules.put(declared(Cron("0 * * * *", overlap="skip")), "file", MIDNIGHT)  # meanwhile
    assert await store.schedules.fire(read, HOURLY, due, MIDNIGHT + HOUR) is None
    await store.schedules.pause("talk")
    assert await store.schedules.due(MIDNIGHT + HOUR) == []
    assert await rows(store, "SELECT * FROM run") == []


async def test_jitter_delays_the_run_and_not_the_slot(store: Store) -> None:
    cron = Cron("0 * * * *", jitter="10m")
    await store.schedules.put(declared(cron), "file", MIDNIGHT)
    fired = await fire_one(store, MIDNIGHT + HOUR)
    (run,) = await rows(store, "SELECT due_at FROM run")
    assert fired.slot == MIDNIGHT + HOUR
    assert run.due_at == fired.slot + delay(cron, "talk", fired.slot)


# -- clocks -----------------------------------------------------------------------------------------------------------


async def test_setting_the_clock_back_fires_no_slot_twice(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    for number in (1, 2, 3):
        await fire_due(store, MIDNIGHT + number * HOUR)
    for back in (2.5, 0.0, -300.0, 1.0, 3.0):
        assert await fire_due(store, MIDNIGHT + back * HOUR) == []
    await fire_due(store, MIDNIGHT + 4 * HOUR)
    assert await decisions(store) == [(number, "fired") for number in (1, 2, 3, 4)]


async def test_setting_the_clock_back_fires_no_slot_twice_even_if_the_schedule_changes_or_resumes(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    await fire_due(store, MIDNIGHT + HOUR)
    await store.schedules.put(declared(Cron("*/30 * * * *", overlap="allow")), "file", MIDNIGHT)
    await store.schedules.pause("talk")
    resumed = await store.schedules.resume("talk", MIDNIGHT - 5 * HOUR)
    assert resumed.next_slot == MIDNIGHT + 1.5 * HOUR
    assert await fire_due(store, MIDNIGHT + HOUR + 1) == []
    await store.schedules.mark_gone("talk", "/jobs/talk.py")
    await store.schedules.put(declared(), "file", MIDNIGHT)
    await fire_due(store, MIDNIGHT + 2 * HOUR)
    assert await decisions(store) == [(1, "fired"), (2, "fired")]


async def test_setting_the_clock_forward_counts_every_skipped_slot(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    fired = await fire_due(store, MIDNIGHT + 6.5 * HOUR)
    assert await decisions(store) == [(number, "missed") for number in range(1, 6)] + [(6, "fired")]
    (found,) = await store.schedules.listed()
    assert (found.missed, found.last_slot) == (5, MIDNIGHT + 6 * HOUR)
    assert slot_lines(fired) == [
        "slot 2026-01-01 06:00Z of job talk is queued as run 1",
        "job talk has missed 5 slots",
    ]


async def test_slots_of_a_long_downtime_are_decided_in_steps_without_a_gap(store: Store) -> None:
    await store.schedules.put(declared(Cron("* * * * *", overlap="allow")), "file", MIDNIGHT)
    fired = await fire_due(store, MIDNIGHT + 24 * HOUR)
    assert [one.slot for one in fired] == [MIDNIGHT + 60 * number for number in range(1, 1441)]
    assert Counter(one.decision for one in fired) == {Decision.MISSED: 1439, Decision.FIRED: 1}
    assert len(await rows(store, "SELECT * FROM slot")) == 1440


# -- overlap ----------------------------------------------------------------------------------------------------------


async def test_skip_fires_only_if_no_earlier_run_is_queued_or_executing(store: Store) -> None:
    await store.schedules.put(declared(Cron("0 * * * *", overlap="skip")), "file", MIDNIGHT)
    first = await fire_one(store, MIDNIGHT + HOUR)
    skipped = await fire_one(store, MIDNIGHT + 2 * HOUR)
    assert skipped.decision is Decision.SKIPPED
    assert slot_lines([skipped]) == ["slot 2026-01-01 02:00Z of job talk is skipped: an earlier run is not over"]
    assert first.run_id is not None
    await begun(store, first.run_id)
    assert (await fire_one(store, MIDNIGHT + 3 * HOUR)).decision is Decision.SKIPPED
    await finished(store, first.run_id)
    assert (await fire_one(store, MIDNIGHT + 4 * HOUR)).decision is Decision.FIRED
    assert (await store.schedules.listed())[0].missed == 0


async def test_a_manual_run_blocks_a_slot_and_a_run_of_another_job_does_not(store: Store) -> None:
    await store.schedules.put(declared(Cron("0 * * * *")), "file", MIDNIGHT)
    await store.schedules.put(declared(Cron("0 * * * *"), job="other", file="/jobs/other.py"), "file", MIDNIGHT)
    await change(store, "INSERT INTO job (name) VALUES ('talk')")
    await change(
        store, "INSERT INTO run (job_id, state, fingerprint, spec, created_at) SELECT id, 'open', 'f', '{}', 1 FROM job"
    )
    await begun(store, 1)
    fired = {one.job: one.decision for one in await fire_due(store, MIDNIGHT + HOUR)}
    assert fired == {"talk": Decision.SKIPPED, "other": Decision.FIRED}
    await change(store, "UPDATE process SET state = 'dead'")  # no process executes it any more, and it is not queued
    assert {one.job: one.decision for one in await fire_due(store, MIDNIGHT + 2 * HOUR)}["talk"] is Decision.FIRED


async def test_buffer_one_lets_one_run_wait(store: Store) -> None:
    await store.schedules.put(declared(Cron("0 * * * *", overlap="buffer_one")), "file", MIDNIGHT)
    first = await fire_one(store, MIDNIGHT + HOUR)
    assert (await fire_one(store, MIDNIGHT + 2 * HOUR)).decision is Decision.SKIPPED
    assert first.run_id is not None
    await begun(store, first.run_id)
    assert (await fire_one(store, MIDNIGHT + 3 * HOUR)).decision is Decision.FIRED
    assert (await fire_one(store, MIDNIGHT + 4 * HOUR)).decision is Decision.SKIPPED


async def test_cancel_other_cancels_existing_runs_in_the_same_transaction(store: Store) -> None:
    await store.schedules.put(declared(Cron("0 * * * *", overlap="cancel_other")), "file", MIDNIGHT)
    first = await fire_one(store, MIDNIGHT + HOUR)
    assert first.run_id is not None
    await begun(store, first.run_id)
    second = await fire_one(store, MIDNIGHT + 2 * HOUR)
    third = await fire_one(store, MIDNIGHT + 3 * HOUR)
    states = {row.id: row for row in await rows(store, "SELECT id, state, due_at, finished_at FROM run")}
    assert [states[one.run_id].state for one in (first, second, third)] == ["cancelled", "cancelled", "ingesting"]
    assert (states[first.run_id].due_at, states[first.run_id].finished_at) == (None, MIDNIGHT + 2 * HOUR)


async def test_a_schedule_fired_manually_queues_a_run_as_the_policy_allows(store: Store) -> None:
    await store.schedules.put(declared(Cron("0 * * * *", overlap="skip")), "file", MIDNIGHT)
    run_id = await store.schedules.fire_now("talk", MIDNIGHT + 5)
    (run,) = await rows(store, "SELECT id, due_at FROM run")
    assert (run.id, run.due_at) == (run_id, MIDNIGHT + 5)
    assert await decisions(store) == []
    with pytest.raises(UsageError, match="an earlier run of 'talk' is not over"):
        await store.schedules.fire_now("talk", MIDNIGHT + 6)
    with pytest.raises(UsageError, match="no schedule of a job 'nobody'"):
        await store.schedules.fire_now("nobody", MIDNIGHT)


# -- waiting for other jobs -------------------------------------------------------------------------------------------


async def test_the_run_of_a_slot_waits_for_the_latest_runs_of_other_jobs(store: Store) -> None:
    await store.schedules.put(declared(after=(("prepare", False), ("tidy", True))), "file", MIDNIGHT)
    for job in ("prepare", "prepare", "tidy"):
        await store.queue.submit(Submission(job, {}, ["c"], MIDNIGHT))
    fired = await fire_one(store, MIDNIGHT + HOUR)
    waits = [tuple(row) for row in await rows(store, "SELECT run_id, for_run, any_end FROM wait ORDER BY for_run")]
    assert waits == [(fired.run_id, 2, 0), (fired.run_id, 3, 1)]
    by_hand = await store.schedules.fire_now("talk", MIDNIGHT + HOUR)
    assert len(await rows(store, f"SELECT 1 FROM wait WHERE run_id = {by_hand}")) == 2


async def test_slots_are_skipped_and_reported_while_a_required_job_has_no_run(store: Store) -> None:
    waits = declared(Cron("0 * * * *", overlap="cancel_other"), after=(("prepare", True),))
    await store.schedules.put(waits, "file", MIDNIGHT)
    (skipped,) = await fire_due(store, MIDNIGHT + HOUR)
    assert skipped.decision is Decision.SKIPPED
    assert slot_lines([skipped]) == [
        "slot 2026-01-01 01:00Z of job talk is skipped: job 'prepare', for which it waits, has no run yet"
    ]
    with pytest.raises(UsageError, match="job 'prepare', for which it waits, has no run yet: run or submit that one"):
        await store.schedules.fire_now("talk", MIDNIGHT + HOUR)
    await store.queue.submit(Submission("prepare", {}, ["c"], MIDNIGHT))
    assert (await fire_one(store, MIDNIGHT + 2 * HOUR)).decision is Decision.FIRED
    assert await decisions(store) == [(1, "skipped"), (2, "fired")]


async def test_the_required_run_of_a_slot_is_queued_first(store: Store) -> None:
    """Two jobs that wait for each other are fired as well."""
    await store.schedules.put(declared(after=(("prepare", False),)), "file", MIDNIGHT)
    await store.schedules.put(declared(job="prepare"), "file", MIDNIGHT)
    fired = {one.job: one for one in await fire_due(store, MIDNIGHT + HOUR)}
    waits = [tuple(row) for row in await rows(store, "SELECT run_id, for_run FROM wait")]
    assert waits == [(fired["talk"].run_id, fired["prepare"].run_id)]
    await store.schedules.put(declared(job="prepare", after=(("talk", False),)), "file", MIDNIGHT)
    assert {one.decision for one in await fire_due(store, MIDNIGHT + 2 * HOUR)} == {Decision.FIRED}


async def test_changing_the_required_jobs_updates_the_schedule_and_moves_no_slot(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    later = MIDNIGHT + 5.5 * HOUR
    assert await store.schedules.put(declared(after=(("prepare", False),)), "file", later)
    assert not await store.schedules.put(declared(after=(("prepare", False),)), "file", later)
    (found,) = await store.schedules.listed()
    assert (found.after, found.next_slot) == ((("prepare", False),), MIDNIGHT + HOUR)


# -- changed and removed schedules ------------------------------------------------------------------------------------


async def test_an_unchanged_cron_continues_and_a_changed_one_starts_now(store: Store) -> None:
    assert await store.schedules.put(declared(), "file", MIDNIGHT)
    later = MIDNIGHT + 10.5 * HOUR
    assert not await store.schedules.put(declared(), "file", later)
    assert await store.schedules.put(declared(replace(HOURLY, catch_up="none")), "file", later)
    assert (await store.schedules.listed())[0].next_slot == MIDNIGHT + HOUR
    assert await store.schedules.put(declared(IN_KOLKATA), "file", later)
    assert (await store.schedules.listed())[0].next_slot == MIDNIGHT + 11.5 * HOUR
    assert await rows(store, "SELECT * FROM slot") == []


async def test_slots_during_a_pause_are_neither_fired_nor_missed(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    await store.schedules.pause("talk")
    assert await fire_due(store, MIDNIGHT + 3 * HOUR) == []
    assert not await store.schedules.put(declared(), "file", MIDNIGHT)  # it stays paused when its file is read
    resumed = await store.schedules.resume("talk", MIDNIGHT + 3.5 * HOUR)
    assert (resumed.paused, resumed.next_slot, resumed.missed) == (False, MIDNIGHT + 4 * HOUR, 0)
    again = await store.schedules.resume("talk", MIDNIGHT + 7 * HOUR)  # it does not rest, so it misses nothing
    assert again.next_slot == MIDNIGHT + 4 * HOUR
    with pytest.raises(UsageError, match="no schedule"):
        await store.schedules.pause("nobody")


async def test_a_removed_schedule_rests_until_it_is_declared_again(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    assert not await store.schedules.mark_gone("talk", "/elsewhere/talk.py")
    assert await store.schedules.mark_gone("talk", "/jobs/talk.py")
    assert not await store.schedules.mark_gone("talk", "/jobs/talk.py")
    assert await fire_due(store, MIDNIGHT + 3 * HOUR) == []
    assert await store.schedules.listed() == []
    assert await store.schedules.put(declared(), "file", MIDNIGHT + 3.5 * HOUR)
    assert (await store.schedules.listed())[0].next_slot == MIDNIGHT + 4 * HOUR


async def test_an_unreadable_schedule_is_reported_and_the_others_fire(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    for job in ("a", "b", "c"):
        await store.schedules.put(declared(job=job, file=f"/jobs/{job}.py"), "file", MIDNIGHT)
    await change(store, "UPDATE schedule SET cron = 'every day' WHERE job = 'a'")
    await change(store, "UPDATE schedule SET tz = 'Mars/Olympus' WHERE job = 'b'")
    await change(store, "UPDATE schedule SET deadline = 'soon' WHERE job = 'c'")
    assert [one.job for one in await fire_due(store, MIDNIGHT + HOUR)] == ["talk"]
    broken = {file.path: file.error for file in await store.schedules.broken()}
    assert broken.keys() == {"/jobs/a.py", "/jobs/b.py", "/jobs/c.py"}
    assert "no time zone 'Mars/Olympus'" in broken["/jobs/b.py"]
    assert await store.schedules.due(MIDNIGHT + HOUR) == []  # it is not read again every second
    with pytest.raises(UsageError, match="cannot be understood"):
        await store.schedules.resume("a", MIDNIGHT)
    assert await store.schedules.put(declared(job="a", file="/jobs/a.py"), "file", MIDNIGHT + HOUR)
    assert {one.job for one in await fire_due(store, MIDNIGHT + 2 * HOUR)} == {"a", "talk"}


async def test_pruned_decisions_are_not_made_again(store: Store) -> None:
    await store.schedules.put(declared(), "file", MIDNIGHT)
    await fire_due(store, MIDNIGHT + 3 * HOUR)
    await change(store, "DELETE FROM slot")
    assert await fire_due(store, MIDNIGHT + 3 * HOUR) == []
    (found,) = await store.schedules.listed()
    assert (found.missed, found.next_slot) == (2, MIDNIGHT + 4 * HOUR)


@pytest.mark.parametrize("name", ["_DUE", "_BY_JOB", "_MOVE", "_ACTIVE", "_CANCEL", "_DECIDED"])
async def test_a_hot_statement_scans_no_table_and_sorts_nothing(store: Store, name: str) -> None:
    statement = getattr(schedules, name)
    values = dict.fromkeys(re.findall(r"(?<!:):(\w+)", statement), 1) | {"decided": "[]"}
    async with store.database.write() as connection:
        found = (await connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)).all()
    plan = [str(row.detail) for row in found]
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    assert [step for step in scans if "ix_run_queued" not in step and "ix_run_holder" not in step] == []  # never many
    assert not any("TEMP B-TREE" in step for step in plan)


async def test_broken_files_are_reported_until_they_are_fixed(store: Store, tmp_path: Path) -> None:
    path = str(tmp_path / "job.py")
    await store.schedules.report_broken(path, "line 3: no", 1.0)
    await store.schedules.report_broken(path, "line 4: no", 2.0)
    (broken,) = await store.schedules.broken()
    assert (broken.path, broken.error, broken.at) == (path, "line 4: no", 2.0)
    await store.schedules.mended(path)
    assert await store.schedules.broken() == []
