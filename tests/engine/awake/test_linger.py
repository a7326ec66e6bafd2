from __future__ import annotations

import time
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import anyio
import pytest

from orchestrator import Policy
from orchestrator.domain.errors import EndpointLost
from orchestrator.domain.terms import Terms
from orchestrator.engine.awake import linger as linger_module
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.linger import is_wanted, linger
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from tests.engine.scripted import Scripted, job_of, outputs, run, tenant
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.sinks.delivery import FileDelivery
    from orchestrator.store import Store

LOST_FOR = 0.5  # seconds
TERMS = Terms("scripted", {"kind": "scripted"}, price_per_hour=3600.0)


async def test_an_endpoint_is_kept_awake_exactly_as_long_as_its_terms_say(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=replace(TERMS, linger=0.01))
    (stay,) = (await run(job_of(["a"], endpoint, tmp_path), store)).session_costs
    assert endpoint.calls == ["resume", "pause"]
    assert stay.spent.idle >= 0.01


class Queued:
    """A queued run that is coming for so many queries; records whether free runs were included."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked: list[bool] = []

    async def __call__(self, now: float, *, free: bool) -> bool:
        assert now > 0
        self.asked.append(free)
        return len(self.asked) <= self.times


@pytest.mark.parametrize(("hand_over", "free"), [(600.0, True), (-1.0, False)])
async def test_an_endpoint_is_kept_awake_for_a_coming_run_and_briefly_for_a_waiting_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, hand_over: float, *, free: bool
) -> None:
    monkeypatch.setattr(linger_module, "HAND_OVER", hand_over)
    queued, delivered = Queued(2), anyio.Event()
    delivered.set()
    async with AsyncExitStack() as stack:
        lent = await stack.enter_async_context(awake(Scripted(terms=TERMS), await tenant(store)))
        assert not await is_wanted(lent, queued)  # nothing has woken it
        async with lent.connect(Policy()):
            pass
        assert await is_wanted(lent, queued)
        await linger(lent, Stop(), queued, delivered)
    assert queued.asked == [True, free, free]


@pytest.mark.parametrize(("terms", "wanted"), [(None, False), (replace(TERMS, linger=1.0), True)])
async def test_an_endpoint_without_terms_is_not_kept_awake_and_one_that_lingers_is_for_any_run(
    store: Store, terms: Terms | None, *, wanted: bool
) -> None:
    queued = Queued(9)
    async with awake(Scripted(terms=terms), await tenant(store)) as lent:
        async with lent.connect(Policy()):
            pass
        assert await is_wanted(lent, queued) == wanted
    assert queued.asked == []


class Gated(JsonlSink):
    """A sink that opens once the endpoint sleeps."""

    endpoint: ClassVar[Scripted]

    @contextmanager
    def open(self) -> Iterator[FileDelivery]:
        deadline = time.monotonic() + 30
        while self.endpoint.calls != ["resume", "pause"]:
            assert time.monotonic() < deadline, "it is kept awake for the delivery"
            time.sleep(0.001)
        with super().open() as delivery:
            yield delivery


@pytest.mark.real_time
async def test_a_delivery_longer_than_the_linger_time_does_not_keep_the_endpoint_awake(
    store: Store, tmp_path: Path
) -> None:
    Gated.endpoint = endpoint = Scripted(terms=replace(TERMS, linger=0.01))
    job = replace(job_of(["a"], endpoint, tmp_path), sink=Gated(tmp_path / "out.jsonl"))
    await run(job, store)
    assert outputs(job) == {"i0": "A"}


async def test_the_endpoint_stays_awake_for_a_run_that_depends_on_the_delivery(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger_module, "HAND_OVER", -1.0)
    queued, delivered = Queued(2), anyio.Event()
    async with awake(Scripted(terms=TERMS), await tenant(store)) as lent:
        async with lent.connect(Policy()):
            pass
        async with anyio.create_task_group() as group:
            group.start_soon(linger, lent, Stop(), queued, delivered)
            while not queued.asked:
                await anyio.sleep(0.001)
            delivered.set()
    assert queued.asked == [True, False, False]


async def test_time_spent_waiting_for_a_lost_endpoint_is_recorded_and_is_not_asking_time(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted(terms=TERMS, fails=EndpointLost("loading", retry_after=LOST_FOR))
    progress, reports = Progress(), []

    async def note_the_report() -> None:
        request = RunRequest(job_of(["a"], endpoint, tmp_path))
        reports.append(await run_job(request, store, progress, Stop(), UNGUARDED))

    async with anyio.create_task_group() as group:
        group.start_soon(note_the_report)
        while not any("lost" in presence.note for presence in progress.present):
            await anyio.sleep(0.001)
        endpoint.fails = None
    (report,) = reports
    (stay,) = report.session_costs
    assert stay.spent.idle >= LOST_FOR
    assert report.asking <= report.seconds - LOST_FOR
