"""What a job file may say about the jobs that this one waits for, and what that is no part of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.scripted import Scripted, job_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(["a"], Scripted(), tmp_path)


def test_a_job_waits_for_one_other_or_several_for_their_success_or_any_end(job: Job) -> None:
    assert job.waits_for == ()
    assert replace(job, after="prepare").waits_for == (("prepare", False),)
    both = replace(job, after=("prepare", "clean.up"), after_end=["tidy"])
    assert both.waits_for == (("prepare", False), ("clean.up", False), ("tidy", True))


def test_what_a_job_waits_for_is_no_part_of_what_its_answers_depend_on(job: Job) -> None:
    waiting = replace(job, after="prepare", after_end="tidy")
    assert waiting.fingerprint(waiting.identity(), 5) == job.fingerprint(job.identity(), 5)


@pytest.mark.parametrize("wrong", [7, ["prepare", 7], "7", "", "two words", None, {"prepare"}])
@pytest.mark.parametrize("field", ["after", "after_end"])
def test_what_is_no_jobs_name_is_refused(job: Job, field: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=rf"^{field}=.* is neither a job's name nor a list of such"):
        replace(job, **{field: wrong})  # type: ignore[arg-type]  # that is the test


def test_a_job_does_not_wait_for_itself(job: Job) -> None:
    with pytest.raises(ValueError, match="'scripted' cannot wait for itself"):
        replace(job, after_end=("prepare", "scripted"))
