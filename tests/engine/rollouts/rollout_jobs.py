"""Jobs with rollouts for tests, and what they have asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator import Job, Policy
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.engine.scripted import QUICK, Scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from orchestrator.store import Store


def rollout_job(
    texts: Sequence[str],
    rollout: Callable[[Any, Any], Awaitable[object]],
    endpoint: Scripted | Mapping[str, Scripted],
    folder: Path,
    policy: Policy | None = None,
    name: str = "rollouts",
) -> Job:
    source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
    policy = policy or Policy(backoff=QUICK)
    return Job(name, source, endpoint, JsonlSink(folder / f"{name}.jsonl"), policy=policy, rollout=rollout)


def failures(job: Job) -> dict[str, dict[str, Any]]:
    """Return why items were discarded, by id."""
    file = Path(str(job.output)).with_suffix(".failures.jsonl")
    return {record["id"]: record["error"] for record in map(orjson.loads, file.read_bytes().splitlines())}


@dataclass
class AskRow:
    item_id: str
    number: int
    endpoint: str | None
    step: str | None
    request: Any
    outcome: str | None
    answer: Any
    attempts: int


async def ask_rows(store: Store, job: str = "rollouts") -> list[AskRow]:
    """Return all asks of a job, in the order in which its rollouts made them."""
    statement = """
        SELECT item_id, number, endpoint, step, request, outcome, answer, attempts
        FROM ask JOIN job ON job.id = job_id WHERE name = :job ORDER BY item_id, number
    """
    async with store.database.read() as connection:
        rows = (await connection.execute(statement, {"job": job})).all()
    return [
        AskRow(item, number, to, step, orjson.loads(request), outcome, answer and orjson.loads(answer), attempts)
        for item, number, to, step, request, outcome, answer, attempts in rows
    ]
