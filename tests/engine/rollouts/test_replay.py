"""How far rollouts come with what the ledger has of their asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.engine.rollouts.replay import Replay, Replayed
from tests.engine.rollouts.rollout_jobs import rollout_job
from tests.engine.scripted import Scripted, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator import Ask, Job
    from orchestrator.store import Store


async def look_up(word: str) -> str:
    return word


async def first(row: dict[str, str], ask: Ask) -> object:
    found = await ask.call(look_up, row["text"])
    return await asyncio.gather(*(ask(f"{found} {number}") for number in range(3)))


async def replayed(job: Job, store: Store) -> Replayed:
    known = await store.asks.of(1, ["i0"])
    identity = await to_thread.run_sync(job.identity)
    return await Replay(job, identity)("i0", b'{"id":"i0","text":"a"}', known.get("i0", {}))


async def test_asks_with_answers_and_those_that_are_missing_are_counted(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(name="e")

    async def more(row: dict[str, str], ask: Ask) -> object:
        found = await asyncio.gather(*(ask(f"{row['text']} {number}") for number in range(5)))
        return await ask(str(found))

    async def calls(row: dict[str, str], ask: Ask) -> object:
        return await ask.call(look_up, "another word")

    async def fails(row: dict[str, str], ask: Ask) -> object:
        raise ValueError(await ask("a 1"))

    def job(rollout: Callable[..., object]) -> Job:
        return rollout_job(["a"], rollout, endpoint, tmp_path)  # type: ignore[arg-type]  # all are async

    assert await replayed(job(first), store) == Replayed(0, 1)
    await run(job(first), store)
    asked = list(endpoint.asked)
    assert await replayed(job(first), store) == Replayed(4, 0)
    assert await replayed(job(more), store) == Replayed(3, 2)
    assert await replayed(job(calls), store) == Replayed(0, 1)
    assert await replayed(job(fails), store) == Replayed(1, 0)
    assert endpoint.asked == asked
