"""The control planes of Hugging Face Jobs: one job, which is created, found by its labels and cancelled; or several.

Hugging Face Jobs have no state to return to: each waking creates them, and their labels (endpoint, replica, window)
are how any process finds them. What a container runs may be our own worker
(`worker/container.py`), whose token every process of the user derives from the Hub's. A provider that keeps its own
clock is `Metered`: before a resume it is told the window's label and the lifetime (`domain/lifetime.py`: budget,
run window, deadline), after which it ends the server by itself; after the pause, the receipt gets what it bills.
"""

from __future__ import annotations

import logging
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from math import inf
from typing import TYPE_CHECKING

import anyio
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, EndpointRefused, EndpointSilent, OrchestratorError
from orchestrator.domain.policy import Backoff
from orchestrator.domain.terms import Billed, cost_of
from orchestrator.endpoints.api_calls import ApiBusy, keeps_secrets
from orchestrator.endpoints.hf_calls import Declined, health_status
from orchestrator.endpoints.hf_jobs_api import REPLICA_LABEL, WINDOW_LABEL
from orchestrator.endpoints.http import data_plane
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.wires.failures import from_proxied_answer
from orchestrator.wires.huggingface import for_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    import aiohttp

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.hf_jobs_api import JobDescription, Jobs
    from orchestrator.endpoints.http import HttpData
    from orchestrator.wires.wire import Wire

_logger = logging.getLogger(__name__)

LOOK_EVERY = 4.0  # seconds
BETWEEN_CREATIONS = Backoff(first=1.0, cap=30.0)  # while the API says that it can create none now
_SHORTEST = 60  # seconds for which a job may run at least
_CREATIONS = 3  # times that we try to create a job of which the API gives no answer
_FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class JobAccess:
    """What all jobs of one endpoint share: its settings, the API, and the session of health checks.

    `terms`: those of the endpoint as a whole. `spec`: what the API is sent to create one, without its timeout; or why
    none can be created. `longest`: seconds for which one may run. `price_per_hour`: dollars for one, if the user has
    set it. `headers`: of every request to a job. `startup_timeout`: for so many seconds we try to create a job.
    """

    name: str
    terms: Terms
    jobs: Jobs
    probe: aiohttp.ClientSession
    spec: Mapping[str, object] | OrchestratorError
    longest: float
    health: str
    wire: Wire
    headers: Mapping[str, str]
    price_per_hour: float | None
    startup_timeout: float

    async def as_soon_as_possible(self, create: Callable[[], Awaitable[None]]) -> None:
        """Create jobs as soon as the API can, which it is asked again after rate limits and server errors."""
        deadline = anyio.current_time() + self.startup_timeout
        for tried in count(1):
            try:
                await create()
            except ApiBusy as busy:
                pause = max(BETWEEN_CREATIONS.delay(tried, random.random()), busy.wait)
                if anyio.current_time() + pause >= deadline:
                    raise
                if tried == 1:
                    _logger.warning("endpoint %s: no job can be created yet, trying again: %s", self.name, busy)
                await anyio.sleep(pause)
            else:
                return

    async def price(self, flavor: str) -> float | None:
        """Return dollars per hour for one job on this hardware."""
        return await self.jobs.price(flavor) if self.price_per_hour is None else self.price_per_hour

    async def billed(self, window: str) -> Billed | None:
        """Return the seconds of all jobs of a window, and what they cost at the price of their hardware."""
        jobs = await self.jobs.of_window(window)
        costs = [cost_of(job.billed_seconds, await self.price(job.flavor)) for job in jobs]
        known = [cost for cost in costs if cost is not None]
        seconds = float(sum(job.billed_seconds for job in jobs))
        return Billed(seconds, sum(known) if len(known) == len(costs) else None) if jobs else None


class JobControl:
    """The control plane of one job at a time: that of an endpoint without replicas, or one replica.

    If the answer to a creation was lost, or two processes have created a job at once, there are two for a moment; the
    first one counts, and the others are cancelled: at once, or by the next look of a process that has created one, if
    the list did not show them yet.
    """

    installing = False

    def __init__(self, access: JobAccess, number: int = 1, count: int = 1) -> None:
        self.name = access.name if count == 1 else f"{access.name} replica {number}"
        self.terms = access.terms if count == 1 else None
        self.look_every = LOOK_EVERY
        self._access = access
        self._number = number
        self._count = count
        self._job: JobDescription | None = None  # at the last look
        self._cancelled: list[JobDescription] = []  # by us, and not seen ended yet
        self._silent: str | None = None  # why it did not answer the last time that we asked
        self._answered = False  # since the last resume
        self._created = False  # since the last resume
        self._left = False
        self._window: str | None = None
        self._seconds = inf

    @property
    def status_text(self) -> str:
        """The job's number and stage in the provider's words, for how long it ran, and why it is silent."""
        job = self._job
        if job is None:
            return "no job"
        ran = "" if job.seconds is None else f", running for {job.seconds} s"
        if job.ended:
            ran = "" if job.seconds is None else f" after running for {job.seconds} s"
        why = f": {job.message}" if job.message else ""
        return f"job {job.id} {job.stage}{ran}{why}" + (f"; {self._silent}" if self._silent else "")

    async def state(self) -> EndpointState:
        """Look for the job now.

        A job that ends by itself before it has answered has failed. One that ends later, as at its timeout, is asleep
        as if a timer of the provider had ended it, and the next one takes its place. One that somebody has cancelled is
        paused, and one that we have cancelled once it is seen ended.
        """
        alive = await self._alive(within=0.0 if self._count == 1 else self.look_every)
        if alive:
            self._job = alive[0]
            if self._created:
                known = {job.id for job in self._cancelled}
                await self._cancel(job for job in alive[1:] if job.id not in known)
            return _state_of(self._job)
        self._silent = None
        jobs = self._access.jobs
        while self._cancelled:
            cancelled = await jobs.again(self._cancelled[-1])
            if self._job is None or self._job.id == cancelled.id:
                self._job = cancelled
            if not cancelled.ended:
                return _state_of(cancelled)
            self._cancelled.pop()
        if self._job is not None and not self._job.ended:
            self._job = await jobs.again(self._job)
        if self._job is not None and not self._job.ended:  # the list does not show it yet
            return _state_of(self._job)
        if self._job is None or self._left or not self._job.ended_by_itself:
            return EndpointState.PAUSED
        return EndpointState.SCALED_TO_ZERO if self._answered else EndpointState.FAILED

    async def price(self) -> float | None:
        """Return dollars per hour for its hardware, exposed port included."""
        spec = self._access.spec
        return None if isinstance(spec, OrchestratorError) else await self._access.price(str(spec["flavor"]))

    def prepare(self, window: str, seconds: float) -> None:
        """Label the next job with this window, and have the provider end it after at most so many seconds."""
        self._window, self._seconds = window, seconds

    async def billed(self, window: str) -> Billed | None:
        """Return what the jobs of this window have cost by the provider's clock and prices."""
        return await self._access.billed(window)

    async def resume(self) -> None:
        """Create the job, unless there is one. If the API cannot do it now, try again until the startup timeout."""
        await self._access.as_soon_as_possible(self.create)

    async def create(self) -> None:
        """Create the job, unless there is one. If the answer is lost, look for the job before creating another one.

        Raises `ApiBusy` if the API cannot do it now; then the same call may find the job.
        """
        self._left = self._answered = self._created = False
        spec, labels = self._spec(), self._labels()
        failure: EndpointSilent | None = None
        for _ in range(_CREATIONS):
            if await self._keep_first():
                return
            try:
                self._created = True
                self._job = await self._access.jobs.run(spec, labels)
            except ApiBusy:
                raise
            except EndpointSilent as lost:
                failure = lost
            else:
                await self._keep_first()  # another process may have created one, or one whose answer was lost is listed
                return
        assert failure is not None
        raise failure

    async def answers(self) -> bool:
        """Whether the health route answers 200. Raises `EndpointRefused` if the token may not use it."""
        url = self._data_url(self._access.health)
        if url is None:
            return False
        status, self._silent = await health_status(self._access.probe, url, self._access.jobs.calls.token.headers)
        if status in _FORBIDDEN:
            owner = self._access.jobs.calls.namespace
            raise EndpointRefused(
                f"endpoint {self.name} answers {status} on its health route: the token needs read access to {owner}"
            )
        self._answered = self._answered or status == HTTPStatus.OK
        return status == HTTPStatus.OK

    async def pause(self, *, to_zero: bool = False) -> None:
        """Cancel its jobs. Does nothing if there is none."""
        self._left, self._silent, self._created = True, None, False
        await self._cancel(await self._alive())

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        """Open the data plane at the job's URL."""
        url = self._data_url("/")
        if url is None:
            raise EndpointLost(f"endpoint {self.name} has no URL")
        wire = for_batches(self._access.wire, policy.batch_size)
        async with data_plane(url, self._access.headers, wire, policy, failure=from_proxied_answer) as data:
            yield data

    async def _alive(self, *, within: float = 0.0) -> Sequence[JobDescription]:
        """Return its own jobs that have not ended. The job of a replica beyond the present count belongs to another."""
        alive = await self._access.jobs.alive(within=within)
        return [job for job in alive if (job.replica - self._number) % self._count == 0]

    async def _keep_first(self) -> bool:
        """Take the first of the jobs that are alive, and cancel the others; return whether there is one."""
        alive = await self._alive()
        if alive:
            self._job = alive[0]
            await self._cancel(alive[1:])
        return bool(alive)

    async def _cancel(self, jobs: Iterable[JobDescription]) -> None:
        for job in jobs:
            try:
                await self._access.jobs.cancel(job)
            except Declined as declined:
                if not (await self._access.jobs.again(job)).ended:
                    raise EndpointSilent(f"job {job.id} cannot be cancelled yet: {declined}") from declined
            else:
                self._cancelled.append(job)

    def _labels(self) -> Mapping[str, str]:
        window = {} if self._window is None else {WINDOW_LABEL: self._window}
        return window if self._count == 1 else {REPLICA_LABEL: str(self._number), **window}

    def _spec(self) -> Mapping[str, object]:
        access = self._access
        if isinstance(access.spec, OrchestratorError):
            raise access.spec
        return {**access.spec, "timeoutSeconds": max(_SHORTEST, int(min(access.longest, self._seconds)))}

    def _data_url(self, route: str) -> URL | None:
        if self._job is None or not self._job.urls:
            return None
        url = URL(self._job.urls[0].rstrip("/") + route)
        if not keeps_secrets(url):
            raise EndpointFailed(f"endpoint {self.name} is at {url}: no token is sent there unencrypted")
        return url


class JobGroup(MemberGroup[JobControl]):
    """The control plane of an endpoint with several jobs."""

    def __init__(self, access: JobAccess, count: int) -> None:
        super().__init__([JobControl(access, number, count) for number in range(1, count + 1)])
        self.terms = access.terms
        self._access = access

    async def state(self) -> EndpointState:
        """Look at all jobs now, with one call, and return the best state."""
        self._access.jobs.look_again()
        return await super().state()

    async def resume(self) -> None:
        """Create the missing jobs, as `JobControl.resume`. Raises a failure only if none could be created."""
        await self._access.as_soon_as_possible(self._create)

    async def _create(self) -> None:
        failures = await self._failures(lambda member: member.create())  # one that is missing is resumed by itself
        if len(failures) == len(self.present):
            raise failures[0]

    def prepare(self, window: str, seconds: float) -> None:
        """Prepare every job for this window."""
        for member in self.present:
            member.prepare(window, seconds)

    async def billed(self, window: str) -> Billed | None:
        """Return what the jobs of this window have cost by the provider's clock and prices."""
        return await self._access.billed(window)


def _state_of(job: JobDescription) -> EndpointState:
    """Return the state of a job that has not ended."""
    return EndpointState.AWAKE if job.stage == "RUNNING" else EndpointState.STARTING
