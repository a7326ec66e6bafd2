"""What an endpoint chooses by the machine, such as a dtype: a job keeps what its earlier runs have chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.ports import ChoosesByMachine

if TYPE_CHECKING:
    from orchestrator.job import Job
    from orchestrator.store import Store


async def choosing_as_before(job: Job, store: Store) -> Job:
    """Return the job with an endpoint that chooses as in its earlier runs, so that their answers stay valid."""
    first, *others = job.endpoints
    endpoint = first.endpoint
    if not isinstance(endpoint, ChoosesByMachine) or not (earlier := await store.runs.identities(job.name)):
        return job
    same = await to_thread.run_sync(endpoint.choosing_as_in, earlier, job.policy)
    return job if same is endpoint else replace(job, endpoint=[replace(first, endpoint=same), *others])


def choice_hints(job: Job) -> list[str]:
    """Return a line for the user on what was chosen; empty if nothing was."""
    endpoint = job.endpoints[0].endpoint
    choice = endpoint.choice() if isinstance(endpoint, ChoosesByMachine) else None
    return [] if choice is None else [choice]
