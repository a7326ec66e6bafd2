"""What an endpoint chooses by the machine, such as a dtype: a job keeps what its earlier runs have chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.ports import ChoosesByMachine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.job import Job, Route, Weighted
    from orchestrator.store import Store


async def choosing_as_before(job: Job, store: Store) -> Job:
    """Return the job with endpoints that choose as in its earlier runs, so that their answers stay valid."""
    if not any(isinstance(route.endpoints[0].endpoint, ChoosesByMachine) for route in job.routes):
        return job
    if not (earlier := await store.runs.identities(job.name)):
        return job
    same = {route.name: await _as_before(job, route, earlier) for route in job.routes}
    if all(same[route.name][0] is route.endpoints[0] for route in job.routes):
        return job
    return replace(job, endpoint=same if isinstance(job.endpoint, Mapping) else same[job.routes[0].name])


async def _as_before(job: Job, route: Route, earlier: Sequence[Mapping[str, object]]) -> list[Weighted]:
    first, *others = route.endpoints
    endpoint, identities = first.endpoint, _of_route(job, route, earlier)
    if isinstance(endpoint, ChoosesByMachine) and identities:
        endpoint = await to_thread.run_sync(endpoint.choosing_as_in, identities, job.policy)
    return [first if endpoint is first.endpoint else replace(first, endpoint=endpoint), *others]


def _of_route(job: Job, route: Route, earlier: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the identities that a route has had, among those of the job."""
    if job.rollout is None:
        return list(earlier)
    routes = [one["routes"] for one in earlier if isinstance(one.get("routes"), Mapping)]
    return [one[route.name] for one in routes if isinstance(one, Mapping) and route.name in one]


def choice_hints(job: Job) -> list[str]:
    """Return a line for the user on what was chosen by each route; empty if nothing was."""
    endpoints = [route.endpoints[0].endpoint for route in job.routes]
    choices = [endpoint.choice() for endpoint in endpoints if isinstance(endpoint, ChoosesByMachine)]
    return [choice for choice in choices if choice is not None]
