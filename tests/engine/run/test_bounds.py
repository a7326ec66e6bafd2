"""The memory of a run does not grow with its items, nor do unwritten answers pile up on a slow disk."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator import Job, Policy
from orchestrator.engine.run import snapshot
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store import Store
from orchestrator.store.sqlite import DRIVER
from tests.engine.scripted import Scripted, job_of, outputs, run
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCURRENCY = 8
FEW, MANY = 2000, 8000
AN_ITEM = 60  # bytes that may remain per item: more than an entry in a set would be too much; coverage keeps some


class Forgotten(list[list[str]]):
    """The requests of an endpoint, which it does not remember."""

    def append(self, _texts: list[str]) -> None: ...


async def test_memory_does_not_grow_with_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 100)  # otherwise the few items would all be read, and leased, at once
    few, many = await peaks(FEW), await peaks(MANY)
    for phase, less, more in zip(("reading", "asking", "delivering"), few, many, strict=True):
        assert more - less < AN_ITEM * (MANY - FEW), phase


async def peaks(items: int) -> list[int]:
    """Return peak bytes of Python objects: before the endpoint is woken, while asking, and afterwards."""
    found: list[int] = []
    answered = count(1)

    def rows() -> Iterator[dict[str, str]]:
        return ({"id": f"i{number}", "text": f"{number} {'x' * 100}"} for number in range(items))

    def note() -> None:
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    async def woken() -> None:
        note()

    def parse(answer: object) -> object:
        if next(answered) == items:
            note()
        return answer

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        async with Store.open(str(Path(folder) / "ledger.db")) as store:
            endpoint = Scripted(batch_size=32, before_resume=woken, asked=Forgotten())
            source, sink = IterableSource(rows, id="id"), JsonlSink(Path(folder) / "out.jsonl")
            policy = Policy(concurrency=CONCURRENCY, batch_size=32)
            gc.collect()
            tracemalloc.start()
            try:
                report = await run(Job("job", source, endpoint, sink, parse=parse, policy=policy), store)
                note()
            finally:
                tracemalloc.stop()
    assert report.counts.completed == items
    return found


@pytest.mark.real_time
@pytest.mark.parametrize("batch_size", [1, 4])
async def test_while_the_ledger_is_locked_answers_waiting_for_it_stay_within_max_in_flight(
    store: Store, tmp_path: Path, batch_size: int
) -> None:
    endpoint = Scripted(batch_size=batch_size)
    policy = Policy(concurrency=CONCURRENCY, batch_size=batch_size)
    texts = [f"text {number}" for number in range(400)]
    job = job_of(texts, endpoint, tmp_path, policy)
    with closing(DRIVER.connect(tmp_path / "ledger.db", isolation_level=None)) as holder:
        async with anyio.create_task_group() as group:
            group.start_soon(run, job, store)
            while endpoint.most_in_flight < CONCURRENCY:
                await anyio.sleep(0.001)
            holder.execute("BEGIN IMMEDIATE")
            await anyio.wait_all_tasks_blocked()
            asked = len(endpoint.texts)
            ((committed,),) = holder.execute("SELECT count(*) FROM result").fetchall()
            holder.execute("COMMIT")
    assert 0 < asked - committed <= CONCURRENCY * batch_size
    assert len(outputs(job)) == len(endpoint.texts) == len(texts)
