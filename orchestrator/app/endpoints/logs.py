"""Logs and metrics of endpoints: at Hugging Face (containers, jobs, Spaces), at SageMaker, or on this machine."""

from __future__ import annotations

import re
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from orchestrator.app.endpoints.lookup import managed_by_hugging_face, management
from orchestrator.app.endpoints.sagemaker import lines_of_sagemaker
from orchestrator.domain.errors import UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import (
    HuggingFaceJobEndpoint,
    HuggingFaceSpaceEndpoint,
    LocalEndpoint,
    LocalServer,
    RayEndpoint,
    SageMakerEndpoint,
    named,
)
from orchestrator.endpoints.engines import Engine
from orchestrator.endpoints.hf_calls import Declined
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence

    from anyio.streams.memory import MemoryObjectSendStream

    from orchestrator.endpoints.hf_jobs_api import JobDescription, Jobs
    from orchestrator.endpoints.hf_spaces_api import Spaces
    from orchestrator.ports import Endpoint

_NOT_A_WORD = re.compile(r"[^a-zA-Z0-9_]")
_STARTED = "===== Job started"  # a line of the service, in every log


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Which lines are wanted: the last `tail`, of one replica, and with `follow` those that are still to be written."""

    follow: bool = False
    tail: int | None = None
    replica: str | None = None


async def log_here(name: str, wanted: LogRequest, declared: Collection[str]) -> ServerLog | None:
    """Return the log of a server on this machine, by its name in config.toml or in a job file; None if it has none."""
    return await to_thread.run_sync(_log_here, name, wanted, declared)


def _log_here(name: str, wanted: LogRequest, declared: Collection[str]) -> ServerLog | None:
    replica = wanted.replica
    number = 1 if replica is None else int(replica) if replica.isdecimal() else 0
    if name in declared:
        endpoint = named(name)
        if not isinstance(endpoint, LocalEndpoint | LocalServer | Engine | RayEndpoint):
            return None
        log = endpoint.log(number)
    elif not (log := ServerLog.of(name, number)).path.exists():
        return None
    if number < 1:
        raise UsageError(f"--replica must be the number of a replica, from 1, not {replica!r}")
    return log


async def lines_of(endpoint: Endpoint, wanted: LogRequest) -> AsyncGenerator[str, None]:
    """Yield the lines of an endpoint's log at Hugging Face or at SageMaker. To stop early, close it (`aclosing`)."""
    if isinstance(endpoint, HuggingFaceJobEndpoint):
        async with endpoint.jobs() as jobs, aclosing(_lines_of_jobs(endpoint.name, jobs, wanted)) as lines:
            async for line in lines:
                yield line
        return
    if isinstance(endpoint, HuggingFaceSpaceEndpoint):
        async with endpoint.spaces() as spaces, aclosing(_lines_of_space(endpoint, spaces, wanted)) as lines:
            async for line in lines:
                yield line
        return
    if isinstance(endpoint, SageMakerEndpoint):
        found = lines_of_sagemaker(endpoint, follow=wanted.follow, tail=wanted.tail, stream=wanted.replica)
        async with aclosing(found) as lines:
            async for line in lines:
                yield line
        return
    async with (
        management(managed_by_hugging_face(endpoint, "logs")) as (api, name),
        aclosing(api.logs(name, follow=wanted.follow, tail=wanted.tail, replica=wanted.replica)) as lines,
    ):
        async for line in lines:
            yield line


async def _lines_of_jobs(name: str, jobs: Jobs, wanted: LogRequest) -> AsyncGenerator[str, None]:
    """Yield the lines of the jobs that are running, else of the last one. Those of several begin with the replica."""
    chosen = _chosen(await jobs.newest(), wanted.replica)
    if not chosen:
        raise UsageError(f"endpoint {name} has no such job" if wanted.replica else f"endpoint {name} had no job yet")
    send, receive = anyio.create_memory_object_stream[str](0)
    async with task_group() as group:
        async with send:
            for job in chosen:
                begin = f"replica {job.replica}\t" if len(chosen) > 1 else ""
                group.start_soon(_pass_on, jobs, job, wanted, begin, send.clone())
        async with receive:
            async for line in receive:
                yield line
        group.cancel_scope.cancel()


async def _pass_on(
    jobs: Jobs, job: JobDescription, wanted: LogRequest, begin: str, send: MemoryObjectSendStream[str]
) -> None:
    params = {} if wanted.tail is None else {"tail": str(wanted.tail)}
    async with send, aclosing(jobs.events(job, "logs", follow=wanted.follow, params=params)) as events:
        async for event in events:
            line = jobs.calls.secrets.hidden_in(str(event.get("data", "")))
            if not line.startswith(_STARTED):
                await send.send(begin + line)


async def _lines_of_space(
    endpoint: HuggingFaceSpaceEndpoint, spaces: Spaces, wanted: LogRequest
) -> AsyncGenerator[str, None]:
    """Yield the lines of the app, or those of its build if it is being built or that has failed."""
    if wanted.replica is not None:
        raise UsageError(f"endpoint {endpoint.name} has no replicas: leave --replica out")
    if wanted.tail is not None and wanted.follow:
        raise UsageError("the log of a Space always begins with its first line when it is followed: leave --tail out")
    name = endpoint.space.partition("/")[2]
    runtime = await spaces.runtime(name)
    route = "logs/build" if runtime is not None and runtime.building else "logs/run"
    last = deque[str](maxlen=wanted.tail)
    async with aclosing(spaces.events(name, route, follow=wanted.follow)) as events:
        async for event in events:
            for line in spaces.calls.secrets.hidden_in(str(event.get("data", ""))).splitlines():
                if wanted.follow:
                    yield line
                else:
                    last.append(line)
    for line in last:
        yield line


def _chosen(jobs: Sequence[JobDescription], replica: str | None) -> Sequence[JobDescription]:
    return [job for job in jobs if replica in {None, job.id, str(job.replica)}]


async def metrics_of(endpoint: Endpoint) -> str:
    """Return the metrics of an endpoint at Hugging Face as OpenMetrics text; of a Space, those of its app."""
    if isinstance(endpoint, HuggingFaceSpaceEndpoint):
        async with endpoint.control() as control:
            await control.state()
            async with control.connect(Policy()) as data:
                if (text := await data.metrics()) is None:
                    raise UsageError(f"endpoint {endpoint.name} has no metrics: its app has no route /metrics")
                return text
    if isinstance(endpoint, HuggingFaceJobEndpoint):
        async with endpoint.jobs() as jobs:
            alive = await jobs.alive()
            if not alive:
                raise UsageError(f"endpoint {endpoint.name} has no job now")
            samples = [sample for job in alive for sample in _samples(job, await _figures(jobs, job))]
        return "\n".join([*samples, "# EOF"])
    if isinstance(endpoint, SageMakerEndpoint):
        raise UsageError(
            "SageMaker keeps them in CloudWatch (AWS/SageMaker): aws cloudwatch list-metrics --namespace AWS/SageMaker "
            f"--dimensions Name=EndpointName,Value={endpoint.endpoint}"
        )
    async with management(managed_by_hugging_face(endpoint, "metrics")) as (api, name):
        return await api.open_metrics(name)


async def _figures(jobs: Jobs, job: JobDescription) -> Mapping[str, Any]:
    """Return a job's present figures; none if it does not run yet, or no more."""
    try:
        async with aclosing(jobs.events(job, "metrics")) as events:
            return await anext(events, {})
    except Declined:
        return {}


def _samples(job: JobDescription, figures: Mapping[str, Any], labels: str = "") -> Iterator[str]:
    """Yield one line for each number; those of a GPU have its name as a label."""
    labels = labels or f'job="{job.id}",replica="{job.replica}"'
    for name, value in figures.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"job_{_NOT_A_WORD.sub('_', name)}{{{labels}}} {value:g}"
        elif name == "gpus" and isinstance(value, dict):
            for gpu, inside in value.items():
                found = inside if isinstance(inside, dict) else {}
                of_gpu = {f"gpu_{key}": figure for key, figure in found.items()}
                yield from _samples(job, of_gpu, f'{labels},gpu="{_NOT_A_WORD.sub("_", gpu)}"')
