from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.schedule import Cron
from orchestrator.domain.timetable import Declared
from orchestrator.engine.daemon.loading import described
from orchestrator.engine.daemon.schedules import JobFolders, fire_due
from tests.commands import DEADLINE

if TYPE_CHECKING:
    from orchestrator.store import Store

pytestmark = pytest.mark.real_time
NOW = 1_767_225_600.0  # 2026-01-01 00:00 UTC
_JOB = """
from orchestrator import Cron, Job
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

{prelude}
job = Job(
    name={name!r},
    source=JsonlSource("rows.jsonl", id="id"),
    endpoint=HttpEndpoint("http://127.0.0.1:9"),
    sink=JsonlSink("out.jsonl"),
    schedule={schedule},
    after={after},
)
"""


def write(
    path: Path, name: str = "talk", schedule: str = "Cron('0 2 * * *')", prelude: str = "", after: str = "()"
) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(_JOB.format(name=name, schedule=schedule, prelude=prelude, after=after))
    return path


async def said(store: Store) -> dict[str, tuple[str, str]]:
    """Return what is scheduled: job -> file and expression."""
    return {one.job: (one.jobfile, one.expression) for one in await store.schedules.listed()}


async def broken(store: Store) -> dict[str, str]:
    return {file.path: file.error for file in await store.schedules.broken()}


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir()
    return folder


async def test_a_child_process_reads_what_a_file_declares(jobs: Path) -> None:
    cron = "Cron('30 2 * * *', tz='Europe/Paris', overlap='buffer_one', jitter='5m')"
    path = write(
        jobs / "talk.py", schedule=cron, prelude="print('{\"job\": 1}')", after="'prepare', after_end=['tidy']"
    )
    found = await described(path)
    assert found.error is None
    assert found.declared is not None
    assert found.declared.job == "talk"
    assert list(found.declared.endpoints) == ["http://127.0.0.1:9"]
    assert found.declared.after == (("prepare", False), ("tidy", True))
    about = dict(found.declared.about)
    spec = about.pop("spec")
    assert isinstance(spec, dict)
    assert (spec["name"], spec["after"], spec["schedule"]["overlap"]) == ("talk", ["prepare"], "buffer_one")
    assert about == {"jobfile": str(path), "folder": str(Path.cwd()), "overrides": [], "limit": None}
    expected = ("30 2 * * *", "Europe/Paris", "buffer_one", 300.0)
    meant = found.declared.cron
    assert (meant.expression, meant.tz, meant.overlap, meant.spread) == expected


@pytest.mark.parametrize(
    ("prelude", "schedule", "error"),
    [
        ("1 / 0", "None", "line 7: ZeroDivisionError: division by zero"),
        ("", "Cron('61 * * * *')", "ValueError: cron '61 * * * *': bad minute"),
        ("", "'0 2 * * *'", "write schedule=Cron"),
        ("import sys; sys.exit(3)", "None", "called exit(3)"),
        ("import os; os._exit(3)", "None", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "None", "ended with exit code -9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGALRM)", "None", "did not say what it declares within"),
        ("if", "None", "line 7: "),
    ],
)
async def test_a_file_that_cannot_be_loaded_is_reported_in_one_line(
    jobs: Path, prelude: str, schedule: str, error: str
) -> None:
    found = await described(write(jobs / "talk.py", prelude=prelude, schedule=schedule))
    assert found.declared is None
    assert found.error is not None
    assert error in found.error
    assert ("exit code" in found.error) == ("exit code" in error)
    assert "\n" not in found.error


async def test_schedules_of_one_file_are_kept_while_another_is_loading(store: Store, jobs: Path) -> None:
    loads, on = jobs / "_loads", jobs / "_on"
    wait = f"import pathlib, time; pathlib.Path({str(loads)!r}).touch()\nwhile not pathlib.Path({str(on)!r}).exists(): "
    slow = write(jobs / "a_slow.py", prelude=f"{wait}time.sleep(0.01)", name="slow")
    await store.schedules.put(_declared(slow), "file", NOW)
    quick = write(jobs / "b_quick.py", name="quick")
    async with anyio.create_task_group() as group:
        group.start_soon(JobFolders([jobs]).look, store, NOW)
        with anyio.fail_after(DEADLINE):
            while "quick" not in await said(store) or not loads.exists():
                await anyio.sleep(0.01)
        assert set(await said(store)) == {"slow", "quick"}  # old schedules stay until the new ones are known
        on.touch()
    assert (await said(store))["quick"][0] == str(quick)


def _declared(path: Path) -> Declared:
    about: dict[str, object] = {"jobfile": str(path)}
    return Declared("slow", about, ["e"], Cron("0 1 * * *"), 0, None, ())


async def test_folders_are_watched_for_new_changed_and_removed_files(store: Store, jobs: Path) -> None:
    folders = JobFolders([jobs])
    assert await folders.look(store, NOW) == []
    talk = write(jobs / "talk.py")
    (told,) = await folders.look(store, NOW)
    assert told == f"{talk}: job 'talk' is run at '0 2 * * *', UTC"
    assert await folders.look(store, NOW) == []

    write(talk, schedule="Cron('0 3 * * *')")
    os.utime(talk, ns=(1, 1))
    assert len(await folders.look(store, NOW)) == 1
    assert await said(store) == {"talk": (str(talk), "0 3 * * *")}

    write(talk, name="other")
    told = "\n".join(await folders.look(store, NOW))
    assert "job 'other' is run" in told
    assert "no longer has a schedule of job 'talk'" in told

    talk.unlink()
    assert "no longer has a schedule of job 'other'" in "\n".join(await folders.look(store, NOW))
    assert await said(store) == {}


async def test_files_without_a_job_or_a_schedule_are_ignored(store: Store, jobs: Path) -> None:
    write(jobs / "unplanned.py", schedule="None")
    (jobs / "shared_prompts.py").write_text("PROMPT = '{text}'\n")
    (jobs / "_draft.py").write_text("this is not Python\n")
    (jobs / "notes.txt").write_text("nor is this\n")
    assert await JobFolders([jobs]).look(store, NOW) == []
    assert (await said(store), await broken(store)) == ({}, {})


async def test_a_broken_file_is_reported_once_and_the_others_continue(store: Store, jobs: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    folders = JobFolders([jobs, nowhere])
    good, bad = write(jobs / "good.py", name="good"), write(jobs / "bad.py", name="bad", prelude="1 / 0")
    told = await folders.look(store, NOW)
    assert len(told) == 3
    errors = await broken(store)
    assert errors.keys() == {str(bad), str(nowhere)}
    assert "ZeroDivisionError" in errors[str(bad)]
    assert errors[str(nowhere)] == "there is no such folder"
    assert await said(store) == {"good": (str(good), "0 2 * * *")}
    assert await folders.look(store, NOW) == []

    write(bad, name="bad")
    nowhere.mkdir()
    assert len(await folders.look(store, NOW)) == 1
    assert await broken(store) == {}
    assert (await said(store)).keys() == {"good", "bad"}


async def test_the_schedules_of_a_file_survive_a_later_error_in_it(store: Store, jobs: Path) -> None:
    folders = JobFolders([jobs])
    talk = write(jobs / "talk.py")
    await folders.look(store, NOW)
    write(talk, prelude="1 / 0")
    await folders.look(store, NOW)
    assert await said(store) == {"talk": (str(talk), "0 2 * * *")}
    assert (await broken(store)).keys() == {str(talk)}
    talk.unlink()
    await folders.look(store, NOW)
    assert (await said(store), await broken(store)) == ({}, {})


async def test_if_two_files_declare_one_job_the_first_counts_and_the_second_is_reported(
    store: Store, jobs: Path
) -> None:
    folders = JobFolders([jobs])
    second = write(jobs / "b.py", schedule="Cron('0 5 * * *')")
    await folders.look(store, NOW)
    first = write(jobs / "a.py")
    (told,) = await folders.look(store, NOW)
    assert told == f"{first} is broken: job 'talk' has its schedule from {second}; only one file can declare it"
    assert await said(store) == {"talk": (str(second), "0 5 * * *")}
    second.unlink()
    assert len(await folders.look(store, NOW)) == 1
    assert await said(store) == {"talk": (str(first), "0 2 * * *")}
    assert await broken(store) == {}


async def test_a_new_daemon_notices_changes_made_while_no_daemon_ran(store: Store, jobs: Path) -> None:
    talk, other = write(jobs / "talk.py"), write(jobs / "other.py", name="other")
    write(jobs / "bad.py", prelude="1 / 0")
    await JobFolders([jobs]).look(store, NOW)
    before = await store.schedules.find("other")
    talk.unlink()
    (jobs / "bad.py").unlink()
    await JobFolders([jobs]).look(store, NOW + 1e6)
    assert await said(store) == {"other": (str(other), "0 2 * * *")}
    assert await broken(store) == {}
    assert await store.schedules.find("other") == before  # slots missed meanwhile still have to be decided


async def test_a_daemon_without_folders_leaves_other_schedules_alone(store: Store, jobs: Path) -> None:
    write(jobs / "talk.py")
    await JobFolders([jobs]).look(store, NOW)
    await JobFolders([]).look(store, NOW)
    assert (await said(store)).keys() == {"talk"}


async def test_a_daemon_fires_schedules_of_its_folders_and_those_added_by_command(store: Store, jobs: Path) -> None:
    write(jobs / "talk.py")
    mine, nobodys = JobFolders([jobs]), JobFolders([])
    await mine.look(store, NOW)
    about = {"jobfile": str(jobs / "talk.py")}
    await store.schedules.put(Declared("added", about, ["e"], Cron("0 2 * * *")), "command", NOW)
    tomorrow = NOW + 24 * 3600
    assert [one.job for one in await fire_due(store, tomorrow, nobodys.concern)] == ["added"]
    assert [one.job for one in await fire_due(store, tomorrow, mine.concern)] == ["talk"]


async def test_a_file_in_another_folder_does_not_take_over_a_job(store: Store, jobs: Path, tmp_path: Path) -> None:
    talk = write(jobs / "talk.py")
    await JobFolders([jobs]).look(store, NOW)
    copy = write(tmp_path / "elsewhere" / "talk.py")
    others = JobFolders([copy.parent])
    assert "has its schedule from" in (await others.look(store, NOW))[0]
    assert (await said(store))["talk"][0] == str(talk)
    talk.rename(tmp_path / "kept.txt")
    await JobFolders([copy.parent]).look(store, NOW)
    assert (await said(store))["talk"][0] == str(copy)


async def test_watching_unchanged_files_executes_no_statement(
    store: Store, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(jobs / f"job{number}.py", name=f"job{number}")
    folders = JobFolders([jobs])
    await folders.look(store, NOW)
    for access in ("read", "write", "write_in_one_trip"):
        monkeypatch.setattr(store.database, access, None)
    assert await folders.look(store, NOW) == []


def test_the_package_exports_cron() -> None:
    import orchestrator

    assert orchestrator.Cron is Cron
