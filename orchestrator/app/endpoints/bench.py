"""What a load test is made of: the endpoint that a name means, the requests, and what keeps a run safe."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator.app.endpoints.check import as_it_speaks
from orchestrator.app.endpoints.lookup import find_endpoint
from orchestrator.app.lost_debts import adopt_lost_debts
from orchestrator.app.request_file import drafts_of, refuse_rollout
from orchestrator.domain.budget import NO_LIMIT, Budget
from orchestrator.domain.errors import UsageError
from orchestrator.domain.load import Sweep
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import HttpEndpoint
from orchestrator.endpoints.http_client import described_client
from orchestrator.engine.awake.reaper import reap
from orchestrator.engine.bench.load_test import LoadRequest, run_load_test
from orchestrator.engine.run.chained import chained
from orchestrator.wires.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Settings
    from orchestrator.domain.load import Load, Objective
    from orchestrator.domain.load_figures import LoadTest
    from orchestrator.engine.bench.load_test import LoadProgress
    from orchestrator.engine.progress import Progress
    from orchestrator.engine.run.execution import Safety
    from orchestrator.engine.stop import Stop
    from orchestrator.job import Job
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store

_MOST_REQUESTS, _MOST_BYTES = 10_000, 64_000_000  # of a source that are kept and sent again and again
_SMALL = [f"Say in one short sentence what is remarkable about the number {number}." for number in range(1, 1001)]


@dataclass(frozen=True, slots=True)
class Bench:
    """A load test as the user asks for it. `job`: whose source the requests come from; without one, small texts.

    `token_env`: for a URL, the environment variable with the token. `stream`: ask for answers in parts, to see when the
    first one comes.
    """

    name: str
    load: Load
    seconds: float
    namespace: str | None = None
    token_env: str | None = None
    job: Job | None = None
    objectives: Sequence[Objective] = ()
    max_cost: float | None = None
    remember: bool = False
    stream: bool = False

    def __post_init__(self) -> None:
        if self.remember and not isinstance(self.load, Sweep):
            raise UsageError("--remember needs --sweep, which finds the best number of requests in flight")


async def bench(
    asked: Bench, store: Store, settings: Settings, safety: Safety, progress: Progress, stop: Stop, shown: LoadProgress
) -> LoadTest:
    """Load an endpoint and measure. It is guarded, paid, capped and paused as in a run."""
    await adopt_lost_debts(store)
    await reap(store)
    client = partial(described_client, settings.http_client, main=current_thread() is main_thread())
    policy = Policy() if asked.job is None else asked.job.policy
    request = LoadRequest(
        asked.load,
        asked.seconds,
        await _requests(asked.job, store),
        policy,
        await to_thread.run_sync(client),
        asked.objectives,
        NO_LIMIT if asked.max_cost is None else Budget(max_cost=asked.max_cost),
        asked.remember,
        asked.stream,
    )
    endpoint = await _endpoint(asked, settings, store)
    wire = getattr(endpoint, "wire", None)
    if asked.stream and wire is not None and not isinstance(wire, Streams):  # before anything is woken
        raise UsageError(f"{asked.name}: {type(wire).__name__} has no answers in parts: leave out --stream")
    return await run_load_test(request, endpoint, store, progress, stop, safety, shown)


async def _endpoint(asked: Bench, settings: Settings, store: Store) -> Endpoint:
    """Return the job's endpoint with this name, else the one that every command means by it."""
    for weighted in [] if asked.job is None else asked.job.endpoints:
        if weighted.endpoint.name == asked.name:
            return weighted.endpoint
    found = await find_endpoint(asked.name, asked.namespace, settings.endpoints, store, as_in_a_run=True)
    if isinstance(found, HttpEndpoint) and "://" in asked.name:
        found = await as_it_speaks(replace(found, token_env=asked.token_env))
    return found


async def _requests(job: Job | None, store: Store) -> list[bytes]:
    """Return the first requests that a run of the job would make."""
    if job is None:
        return [orjson.dumps(text) for text in _SMALL]
    return await to_thread.run_sync(partial(_first, await chained(job, store)))


def _first(job: Job) -> list[bytes]:
    refuse_rollout(job)
    found, size, why = list[bytes](), 0, "it has no rows"
    with ExitStack() as stack:
        for draft in islice(drafts_of(job, None, stack), _MOST_REQUESTS):
            if draft.request is None:
                why = str(draft.unreadable)
                continue
            found.append(draft.request.encode())
            size += len(found[-1])
            if size > _MOST_BYTES:
                break
    if not found:
        raise UsageError(f"no request can be made from the rows of job {job.name!r}: {why}")
    return found
