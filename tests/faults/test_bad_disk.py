"""A disk that reports errors: one clear line, the endpoint paused, no acknowledged answer lost, and work continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import rows, until
from tests.faults.bad_disk import BadDisk
from tests.faults.scene import ANSWERED, ITEMS
from tests.hf_rules import answer_to

if TYPE_CHECKING:
    from tests.faults.scene import Scene


@pytest.fixture
def disk(scene: Scene) -> BadDisk:
    disk = BadDisk(scene.workplace.folder)
    scene.env |= disk.env
    return disk


def test_a_failing_disk_ends_the_run_in_one_line_and_the_endpoint_is_paused(scene: Scene, disk: BadDisk) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        disk.fail()
        scene.service.behave()
        ended = running.end()
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert "the disk reports an error; check it (dmesg), then run the same command again" in ended.err
    until(lambda: scene.service.endpoint("batch").state == "paused")
    disk.heal()
    assert scene.workplace.query("PRAGMA quick_check") == [("ok",)]
    assert scene.workplace.count("result") >= ANSWERED
    scene.run("run", job)
    assert [row["output"] for row in scene.workplace.outputs()] == [
        [answer_to(str(row["text"]))] for row in rows(range(ITEMS))
    ]
    assert scene.left_paused


def test_nothing_is_woken_on_a_failing_disk(scene: Scene, disk: BadDisk) -> None:
    scene.service.behave()
    scene.workplace.make_ledger()
    disk.fail()
    ended = scene.workplace.run("run", scene.job(), env=scene.env)
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert "the disk reports an error" in ended.err
    assert not scene.service.calls("POST /v2/")
