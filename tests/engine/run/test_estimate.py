"""Estimates from what the ledger has of earlier runs, against what the next run takes, in virtual time."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.costs import bill_runs
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.plan import forecast
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.status import status_of
from orchestrator.engine.stop import Stop
from orchestrator.report.progress import progress_line
from tests.engine.scripted import Scripted, job_of, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.domain.estimate import Estimate
    from orchestrator.job import Job
    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)
BASE, PER_CHARACTER, SLOTS = 0.5, 0.005, 4


def server(**changes: object) -> Scripted:
    """A server whose time depends on the length of a request, and that works on four requests at once."""
    settings = {"terms": TERMS, "delay": BASE, "per_character": PER_CHARACTER, "slots": anyio.Semaphore(SLOTS)}
    return Scripted(**settings | changes)  # type: ignore[arg-type]  # each has its type


def texts(number: int, factor: float = 1.0, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [f"{index} " + "x" * int(chance.lognormvariate(5, 0.7) * factor) for index in range(number)]


async def planned(job: Job, store: Store) -> Estimate:
    return (await forecast(RunRequest(job), store)).estimate


async def billed(store: Store, run_id: int) -> float:
    """Seconds awake that a run is billed for."""
    return bill_runs(await store.receipts.since(), 1e18)[run_id].seconds


def with_texts(found: Sequence[str], folder: Path, endpoint: Scripted | None = None) -> Job:
    return job_of(found, endpoint or server(), folder, Policy(concurrency=16))


async def test_the_plan_says_what_the_next_run_costs(store: Store, tmp_path: Path) -> None:
    await run(with_texts(texts(150), tmp_path), store)
    later = with_texts(texts(250, factor=2.0, seed=1), tmp_path)
    estimate = await planned(later, store)
    assert estimate.basis is not None
    assert estimate.basis.startswith("150 requests of run 1, at 1")
    await run(later, store)
    seconds = await billed(store, 2)
    assert estimate.awake_seconds == pytest.approx(seconds, rel=0.2)
    assert estimate.cost == estimate.awake_seconds  # a dollar a second


async def test_a_plan_counts_only_what_is_to_be_asked(store: Store, tmp_path: Path) -> None:
    found = texts(100)
    await run(with_texts(found, tmp_path), store)
    assert (await planned(with_texts(found, tmp_path), store)).awake_seconds == 0
    whole = await planned(with_texts([f"{text}!" for text in found], tmp_path), store)
    half = await planned(
        with_texts([f"{text}!" * (index % 2) or text for index, text in enumerate(found)], tmp_path), store
    )
    assert half.seconds is not None
    assert whole.seconds is not None
    assert half.seconds == pytest.approx(whole.seconds / 2, rel=0.2)


async def test_nothing_can_be_said_before_the_first_run(store: Store, tmp_path: Path) -> None:
    estimate = await planned(with_texts(texts(10), tmp_path), store)
    assert (estimate.awake_seconds, estimate.cost) == (None, None)
    assert "no earlier run" in str(estimate)


async def test_nothing_is_said_from_runs_of_another_model_or_endpoint(store: Store, tmp_path: Path) -> None:
    found = texts(40)
    await run(with_texts(found, tmp_path), store)
    for other in (server(model="other"), server(name="other")):
        changed = with_texts([f"{text}!" for text in found], tmp_path, other)
        assert (await planned(changed, store)).seconds is None


async def test_without_a_price_only_the_time_is_said(store: Store, tmp_path: Path) -> None:
    priceless = Terms("scripted", {"kind": "scripted"})
    await run(with_texts(texts(40), tmp_path, server(terms=priceless)), store)
    estimate = await planned(with_texts(texts(40, seed=1), tmp_path), store)
    assert estimate.awake_seconds is not None
    assert estimate.cost is None
    assert "the price of scripted is not known" in str(estimate)


async def test_an_endpoint_that_is_not_billed_has_only_a_time_of_asking(store: Store, tmp_path: Path) -> None:
    await run(with_texts(texts(40), tmp_path, server(terms=None)), store)
    estimate = await planned(with_texts(texts(40, seed=1), tmp_path), store)
    assert estimate.seconds is not None
    assert (estimate.awake_seconds, estimate.cost) == (None, None)


async def test_a_running_run_says_what_finishing_costs(store: Store, tmp_path: Path) -> None:
    job, progress, lines, left = with_texts(texts(150), tmp_path), Progress(), list[str](), list[float | None]()

    async def watch() -> None:
        while True:
            await anyio.sleep(5.0)
            lines.append(progress_line(progress, []))
            left.append((await status_of("1", store)).cost_left)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await run_job(RunRequest(job), store, progress, Stop(), UNGUARDED)
        group.cancel_scope.cancel()
    assert re.search(r"asking: \d+/150 \d+\.\d/s, .* s and \$\d+\.\d+ left · awake", lines[2]), lines
    known = [cost for cost in left if cost is not None]
    assert 10 < known[len(known) // 2] < 120
    assert (await status_of("1", store)).cost_left is None
