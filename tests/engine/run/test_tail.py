"""What is left goes to a fallback that charges by use, once finishing there is cheaper than staying awake."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator import Policy
from orchestrator.domain.charges import UsePrice
from orchestrator.domain.costs import bill
from orchestrator.domain.report_words import cost_line
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.report import report_of
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.scripted import Scripted, job_of, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.store import Store

TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)  # a dollar a second
TEXTS = [f"text {number}" for number in range(200)]


async def test_the_rest_is_left_to_a_cheaper_fallback_and_the_report_says_so(store: Store, tmp_path: Path) -> None:
    main = Scripted(terms=TERMS, delay=2.0)  # two dollars for four items
    fallback = Scripted(name="fallback", use_price=UsePrice(0.1))
    job = job_of(TEXTS, main, tmp_path, Policy(concurrency=4), fallback)
    progress = Progress()
    report = await run_job(RunRequest(job), store, progress, Stop(), UNGUARDED)
    assert report.counts.completed == len(TEXTS)
    assert sorted(main.texts + fallback.texts) == sorted(TEXTS)  # nothing is asked twice
    assert 50 < len(main.texts) < 100  # after half a minute
    assert main.calls == ["resume", "pause"]
    assert any("items left to the fallback: finishing there costs about $" in line for line in progress.proofs)
    assert "items left to the fallback" in cost_line((await report_of(store, 1)).runs[0])
    costs = {cost.what: cost.dollars for cost in bill(await store.receipts.since(), "endpoint", time.time())}
    assert costs["fallback"] == pytest.approx(0.1 * len(fallback.texts))


@pytest.mark.parametrize("price", [UsePrice(0.6), UsePrice(None, (1.0, 1.0)), None])
async def test_a_fallback_that_costs_more_or_an_unknown_amount_gets_nothing(
    store: Store, tmp_path: Path, price: UsePrice | None
) -> None:
    main, fallback = Scripted(terms=TERMS, delay=2.0), Scripted(name="fallback", use_price=price)
    await run(job_of(TEXTS, main, tmp_path, Policy(concurrency=4), fallback), store)
    assert sorted(main.texts) == sorted(TEXTS)
    assert fallback.texts == []


async def test_nothing_is_left_by_an_endpoint_that_is_not_billed(store: Store, tmp_path: Path) -> None:
    main, fallback = Scripted(delay=2.0), Scripted(name="fallback", use_price=UsePrice(0.0))
    await run(job_of(TEXTS, main, tmp_path, Policy(concurrency=4), fallback), store)
    assert fallback.texts == []


async def test_a_few_items_wake_nothing_if_the_fallback_asks_them_for_less(store: Store, tmp_path: Path) -> None:
    main = Scripted(terms=TERMS, delay=2.0)
    await run(job_of(TEXTS[:40], main, tmp_path, Policy(concurrency=4)), store)
    fallback = Scripted(name="fallback", use_price=UsePrice(0.1))
    job = job_of([*TEXTS[:40], "new", "newer"], main, tmp_path, Policy(concurrency=4), fallback)
    progress = Progress()
    await run_job(RunRequest(job), store, progress, Stop(), UNGUARDED)
    assert sorted(fallback.texts) == ["new", "newer"]
    assert main.calls == ["resume", "pause"]  # of the first run
    assert any(line.startswith("2 items left to the fallback") for line in progress.proofs)
