"""What a job file may say about the jobs that its job waits for, and what that does not affect."""

from __future__ import annotations

import hashlib
import json
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


def test_a_job_waits_for_one_or_several_jobs_and_for_success_or_any_end(job: Job) -> None:
    assert job.waits_for == ()
    assert replace(job, after="prepare").waits_for == (("prepare", False),)
    both = replace(job, after=("prepare", "clean.up"), after_end=["tidy"])
    assert both.waits_for == (("prepare", False), ("clean.up", False), ("tidy", True))


def test_dependencies_of_a_job_do_not_affect_the_identity_of_its_answers(job: Job) -> None:
    waiting = replace(job, after="prepare", after_end="tidy")
    assert waiting.fingerprint(waiting.identity(), 5) == job.fingerprint(job.identity(), 5)


def test_reordering_the_keys_of_a_template_starts_a_new_run(job: Job) -> None:
    def fingerprint(template: object) -> str:
        return replace(job, request=template).fingerprint({"model": "m"}, None)

    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"b": 2, "a": 1})
    before = json.dumps([job.name, {"model": "m"}, {"a": 1, "b": 2}, "", job.kept, None], sort_keys=True)
    assert fingerprint({"a": 1, "b": 2}) == hashlib.sha256(before.encode()).hexdigest()  # as in older ledgers


@pytest.mark.parametrize("wrong", [7, ["prepare", 7], "7", "", "two words", None, {"prepare"}])
@pytest.mark.parametrize("field", ["after", "after_end"])
def test_an_invalid_job_name_is_refused(job: Job, field: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=rf"^{field}=.* is neither a job's name nor a list of names"):
        replace(job, **{field: wrong})  # type: ignore[arg-type]  # that is the test


def test_a_job_does_not_wait_for_itself(job: Job) -> None:
    with pytest.raises(ValueError, match="'scripted' cannot wait for itself"):
        replace(job, after_end=("prepare", "scripted"))
