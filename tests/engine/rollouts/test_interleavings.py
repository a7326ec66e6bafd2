"""Any interleaving of answers, stops and edits ends with the outputs of an undisturbed run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from orchestrator import Policy, RequestFailed
from orchestrator.domain.errors import AskedToStop, EndpointLost
from orchestrator.engine.stop import Stop
from tests.engine.rollouts.rollout_jobs import ask_rows, rollout_job
from tests.engine.scripted import QUICK, Scripted, outputs, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from orchestrator import Ask, Job
    from orchestrator.store import Store

    Rollout = Callable[[Any, Any], Awaitable[object]]

IN_FLIGHT = 3  # at each of two endpoints
TEXTS = [f"text {number}" for number in range(12)]


async def branch(ask: Ask, text: str, depth: int) -> list[object]:
    """Ask a tree of questions, of which the answers decide the shape; some of them fail."""
    try:
        answer = await ask(text, ["left", "right"][sum(map(ord, text)) % 2])
    except RequestFailed:
        return ["failed"]
    if depth == 0:
        return [answer]
    found: dict[int, list[object]] = {}

    async def below(number: int) -> None:
        found[number] = await branch(ask, f"{answer} {number}{' poison' if len(answer) % 7 == 0 else ''}", depth - 1)

    async with anyio.create_task_group() as group:
        for number in range(1 + sum(map(ord, str(answer))) % 3):
            group.start_soon(below, number)
    return [answer, *(found[number] for number in sorted(found))]


async def tree(row: dict[str, str], ask: Ask) -> object:
    return await branch(ask, row["text"], 2)


async def tree_before_an_edit(row: dict[str, str], ask: Ask) -> object:
    return [await branch(ask, row["text"], 1), await branch(ask, f"{row['text']} more", 1)]


class Servers:
    """Two endpoints with random delays, which are lost at random."""

    def __init__(self, luck: random.Random) -> None:
        self.losses = 0
        self._luck = luck
        self.by_name = {name: Scripted(name=name, model=name) for name in ("left", "right")}
        for one in self.by_name.values():
            one.delay, one.fails_with = luck.uniform(0.01, 0.05), self._trouble

    def _trouble(self, _: Sequence[str]) -> Exception | None:
        if self._luck.random() > 0.02:
            return None
        self.losses += 1
        return EndpointLost("gone for a moment")

    @property
    def asked(self) -> int:
        return sum(len(one.texts) for one in self.by_name.values())


async def stopped(job: Job, store: Store, luck: random.Random) -> bool:
    """Run a job, and cut it short at a random moment; return whether that came before its end."""
    stop, after = Stop(), luck.uniform(0.02, 1.0)

    async def cut_short() -> None:
        await anyio.sleep(after)
        stop.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(cut_short)
        try:
            await run(job, store, stop)
        except AskedToStop:
            return True
        group.cancel_scope.cancel()
    return False


@pytest.mark.untraced
@pytest.mark.parametrize("seed", range(6))
async def test_stops_and_edits_at_random_moments_change_no_output(store: Store, tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    policy = Policy(backoff=QUICK, concurrency=IN_FLIGHT, dedupe=luck.random() < 0.5)
    calm = {name: Scripted(name=name, model=name) for name in ("left", "right")}
    undisturbed = rollout_job(TEXTS, tree, calm, tmp_path, policy, name="undisturbed")
    await run(undisturbed, store)
    wanted = outputs(undisturbed)
    assert any("failed" in str(one) for one in wanted.values())

    servers, stops = Servers(luck), 0
    functions: list[Rollout] = [tree, tree_before_an_edit, tree]
    for function in functions:
        job = rollout_job(TEXTS, function, servers.by_name, tmp_path, policy, name="disturbed")
        for _ in range(luck.randrange(4)):
            stops += await stopped(job, store, luck)
        await run(job, store)
    assert outputs(job) == wanted
    recorded = [row for row in await ask_rows(store, "disturbed") if row.outcome is not None]
    assert servers.asked - len(recorded) <= 2 * IN_FLIGHT * (stops + servers.losses)
