"""A stream: the answers of a run as they are committed; leaving it is a stop, and calling it again continues."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator import Backoff, Job, Policy, connect
from orchestrator.endpoints import HttpEndpoint
from orchestrator.errors import UsageError
from orchestrator.sources import IterableSource
from tests.commands import rows
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.servers import InferenceServer

ITEMS = 20
ANSWERED = 6


@pytest.fixture
def job(server: InferenceServer) -> Job:
    given: list[dict[str, object]] = [*rows(range(ITEMS - 1)), {"id": "bad", "text": "poison"}]
    policy = Policy(concurrency=2, backoff=Backoff(first=0.01))
    return Job("talk", IterableSource(given, id="id"), HttpEndpoint(server.url), keep=["text"], policy=policy)


async def streamed(job: Job, ledger: Path, most: int = ITEMS) -> list[dict[str, Any]]:
    """Return the first rows of a stream, which is then closed."""
    found: list[dict[str, Any]] = []
    async with connect(ledger) as app, aclosing(app.stream(job)) as stream:
        async for row in stream:
            found.append(row)
            if len(found) == most:
                break
    return found


async def test_answers_arrive_before_the_run_has_ended_and_each_of_them_once(
    job: Job, tmp_path: Path, server: InferenceServer
) -> None:
    server.behave(hold_after=ANSWERED)
    found: list[dict[str, Any]] = []
    async with connect(tmp_path / "ledger.db") as app:
        async for row in app.stream(job):
            found.append(row)
            if len(found) == ANSWERED - 1:  # the shortest text, which is poison, is asked first
                assert (await app.status("talk")).state == "running"
                await to_thread.run_sync(server.behave)
    assert sorted(row["id"] for row in found) == sorted(f"i{number}" for number in range(ITEMS - 1))
    assert all(row["output"]["said"] == answer_to(row["text"]) for row in found)


async def test_leaving_the_loop_is_a_stop_and_a_later_stream_begins_with_what_was_answered(
    job: Job, tmp_path: Path, server: InferenceServer
) -> None:
    ledger = tmp_path / "ledger.db"
    await to_thread.run_sync(lambda: server.behave(latency=0.01))
    first = await streamed(job, ledger, most=3)
    async with connect(ledger) as app:
        status = await app.status("talk")
    assert (status.state, status.counts.leased) == ("stopped", 0)
    assert len(first) == 3
    assert status.counts.completed < ITEMS - 1
    later = await streamed(job, ledger)
    answered_before = [row["id"] for row in later[: status.counts.completed]]
    assert answered_before == sorted(answered_before, key=lambda name: int(name[1:]))
    assert {row["id"] for row in first} <= set(answered_before)
    assert len(later) == ITEMS - 1
    assert server.quiet().duplicates == 0


async def test_the_stream_of_a_finished_run_yields_all_its_answers_and_asks_nothing(
    job: Job, tmp_path: Path, server: InferenceServer
) -> None:
    ledger = tmp_path / "ledger.db"
    assert len(await streamed(job, ledger)) == ITEMS - 1
    again = await streamed(job, ledger)
    assert [row["id"] for row in again] == [f"i{number}" for number in range(ITEMS - 1)]
    assert server.quiet().requests == ITEMS


async def test_a_stream_raises_what_the_run_raises(job: Job, tmp_path: Path) -> None:
    broken = Job("talk", IterableSource([{"id": "a"}], id="id"), job.endpoint)
    with pytest.raises(UsageError, match="text"):
        await streamed(broken, tmp_path / "ledger.db")
