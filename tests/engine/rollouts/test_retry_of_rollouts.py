"""Retrying, and taking over the answers of another job: what a rollout asks then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator import Policy
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.rollouts.rollout_jobs import rollout_job
from tests.engine.scripted import QUICK, Scripted, outputs
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Ask, Job
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.store import Store

REFUSED = RequestFailed(FailureKind.REJECTED, "no", status=400)


async def two_steps(row: dict[str, str], ask: Ask) -> object:
    draft = await ask(row["text"], step="draft")
    return await ask(f"judge {draft}")


async def run(job: Job, store: Store, **more: Any) -> RunResult:
    return await run_job(RunRequest(job, **more), store, Progress(), Stop(), UNGUARDED)


async def test_a_retried_rollout_asks_anew_what_failed_and_nothing_else(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(fails_with=lambda texts: REFUSED if "judge B" in texts else None)
    policy = Policy(backoff=QUICK, max_error_rate=1.0)
    job = rollout_job(["a", "b"], two_steps, endpoint, tmp_path, policy)
    assert (await run(job, store)).counts.discarded == 1
    before = len(endpoint.texts)
    assert (await run(job, store)).asked == 0
    endpoint.fails_with = None
    result = await run(job, store, retry=1)
    assert (result.plan.retry, result.counts.completed) == (1, 2)
    assert endpoint.texts[before:] == ["judge B"]
    assert outputs(job) == {"i0": "JUDGE A", "i1": "JUDGE B"}
    found = await store.transcripts.of(result.run.id, "i1")
    assert [(ask["request"], ask["outcome"]) for ask in found] == [("b", "completed"), ("judge B", "completed")]


async def test_outputs_of_a_rollout_are_taken_over_by_a_job_with_another_name(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    job = rollout_job(["a", "c"], two_steps, endpoint, tmp_path)
    await run(job, store)
    asked = len(endpoint.texts)
    renamed = replace(job, name="renamed", sink=None)
    assert (await run(renamed, store, reuse=("rollouts",))).counts.completed == 2
    assert len(endpoint.texts) == asked
