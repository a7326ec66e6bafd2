"""The API of Hugging Face Jobs: run, list and cancel jobs, and what their hardware costs.

Source of the protocol: `huggingface_hub` 2.4 (`run_job`, `list_jobs`, `cancel_job`, `list_jobs_hardware`).
"""

from __future__ import annotations

import time
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from yarl import URL

from orchestrator.domain.errors import OrchestratorError
from orchestrator.endpoints.hf_calls import Declined, as_list, as_object, as_stream, hub_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    import aiohttp

    from orchestrator.endpoints.hf_calls import HfCalls

LABEL = "orchestrator-endpoint"  # the label of a job that is one of our endpoints; its value is the endpoint's name
REPLICA_LABEL = "orchestrator-replica"  # which of the endpoint's jobs it is, from 1
WINDOW_LABEL = "orchestrator-window"  # the awake window that it was created for
SCOPE = "job.write"
_STAGES = (("stage", "SCHEDULING"), ("stage", "RUNNING"))  # of jobs that have not ended
_REPLAYED = 3.0  # seconds without anything new after which a stream has replayed all that there is
_END = "\0"  # of a stream
_ENDED = frozenset({"COMPLETED", "CANCELED", "ERROR", "DELETED"})
_EXPOSED = 0.01  # dollars per hour for a job with exposed ports, on top of its hardware


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A job as the API reports it. `message`: why it is in its stage. `seconds`: for how long it has been running.

    `billed_seconds`: since it was created, until it ended. `created_at`: ISO 8601. `urls`: of its exposed ports, once
    they are known.
    """

    id: str
    stage: str
    message: str
    created_at: str
    urls: tuple[str, ...]
    seconds: int | None
    billed_seconds: int
    flavor: str
    labels: Mapping[str, str]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> JobDescription:
        """Read a job. Raises `ValueError` if its number or stage is missing."""
        status, durations, labels = (document.get(name) for name in ("status", "durations", "labels"))
        if not isinstance(document.get("id"), str) or not isinstance(status, dict):
            raise ValueError("there is no job in it")
        running, total = (_seconds(durations, name) for name in ("runningSecs", "totalSecs"))
        return cls(
            id=document["id"],
            stage=str(status.get("stage")),
            message=str(status.get("message") or ""),
            created_at=str(document.get("createdAt") or ""),
            urls=tuple(map(str, status.get("exposeUrls") or ())),
            seconds=running,
            billed_seconds=total or running or 0,
            flavor=str(document.get("flavor") or ""),
            labels=dict(labels) if isinstance(labels, dict) else {},
        )

    @property
    def replica(self) -> int:
        """Which of its endpoint's jobs it is, from 1."""
        number = self.labels.get(REPLICA_LABEL, "")
        return int(number) if number.isdecimal() else 1

    @property
    def endpoint(self) -> str:
        """The name of the endpoint that it is one of, without the namespace; "" if it is none of ours."""
        return self.labels.get(LABEL, "")

    @property
    def ended(self) -> bool:
        """Whether it will not run further, and bills no more."""
        return self.stage in _ENDED

    @property
    def ended_by_itself(self) -> bool:
        """Whether its command ended, or its timeout was up; otherwise somebody cancelled it."""
        return self.stage in {"COMPLETED", "ERROR"}


@dataclass(slots=True)
class _Look:
    """The jobs that were alive at the last look. `at`: when, on the monotonic clock; None: look again."""

    jobs: Sequence[JobDescription] = ()
    at: float | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Jobs:
    """The jobs of one namespace that are one endpoint: those with its name as their label."""

    def __init__(self, calls: HfCalls, name: str) -> None:
        self.calls = calls
        self._name = name
        self._look = _Look()
        self._offers: Sequence[Mapping[str, Any]] | None = None

    async def alive(self, *, within: float = 0.0) -> Sequence[JobDescription]:
        """Return the jobs with the label that have not ended, in the order in which they were created.

        A look of the last `within` seconds is used again, so that many members need one call, unless we have created
        or cancelled a job since.
        """
        look = self._look
        async with look.lock:
            if look.at is None or time.monotonic() >= look.at + within:
                found = await self._list(self._ours, *_STAGES)
                look.jobs = sorted((job for job in found if not job.ended), key=lambda job: job.created_at)
                look.at = time.monotonic()
            return look.jobs

    def look_again(self) -> None:
        """Use no earlier look again."""
        self._look.at = None

    async def of_window(self, window: str) -> Sequence[JobDescription]:
        """Return the jobs that were created for this awake window, in any stage."""
        return await self._list(self._ours, ("label", f"{WINDOW_LABEL}={window}"))

    async def newest(self) -> Sequence[JobDescription]:
        """Return those that are alive; if there are none, the one that was created last."""
        alive = await self.alive()
        return alive or sorted(await self._list(self._ours), key=lambda job: job.created_at)[-1:]

    async def of_all_endpoints(self) -> Sequence[JobDescription]:
        """Return the jobs of the namespace that have not ended and are an endpoint of anybody."""
        return [job for job in await self._list(*_STAGES) if job.endpoint and not job.ended]

    def events(
        self, job: JobDescription, route: str, *, follow: bool = False, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield what a job's `logs` or `metrics` hold; with `follow`, until it ends. To stop early, close it."""
        return events_of(self.calls, self._url(job.id, route), follow=follow, params=params)

    @property
    def _ours(self) -> tuple[str, str]:
        return "label", f"{LABEL}={self._name}"

    async def _list(self, *conditions: tuple[str, str]) -> list[JobDescription]:
        url: str | None = str(URL(self._url()).with_query(list(conditions)))
        jobs: list[JobDescription] = []
        while url is not None:
            page, url = await self.calls.call("GET", url, self._page)
            jobs += page
        return jobs

    async def again(self, job: JobDescription) -> JobDescription:
        """Return a job as it is now; one that the API no longer knows is deleted, and bills no more."""
        try:
            return await self.calls.call("GET", self._url(job.id), self._job)
        except Declined as declined:
            if declined.status != HTTPStatus.NOT_FOUND:
                raise
            return replace(job, stage="DELETED", message="")

    async def run(self, spec: Mapping[str, Any], labels: Mapping[str, str]) -> JobDescription:
        """Create a job, once: if the answer is lost, raises `EndpointSilent`, and the job may have been created."""
        body = {**spec, "labels": {LABEL: self._name, **labels}}
        self.look_again()
        return await self.calls.call("POST", self._url(), self._job, body=body, tries=1)

    async def cancel(self, job: JobDescription) -> None:
        """Cancel a job. Raises `Declined` if it has ended already."""
        self.look_again()
        await self.calls.call("POST", self._url(job.id, "cancel"), _nothing)

    async def price(self, flavor: str) -> float | None:
        """Return dollars per hour for this hardware. None if the list is not to be had, or lacks it."""
        if self._offers is None:
            try:
                self._offers = await self.calls.call("GET", f"{hub_url()}/api/jobs/hardware", as_list, tries=3)
            except OrchestratorError:
                return None
        price = price_per_hour(self._offers, flavor)
        return None if price is None else price + _EXPOSED

    def _url(self, *parts: str) -> str:
        return "/".join((hub_url(), "api", "jobs", self.calls.namespace, *parts))

    async def _page(self, response: aiohttp.ClientResponse) -> tuple[list[JobDescription], str | None]:
        jobs = [self._hidden(JobDescription.read(job)) for job in await as_list(response)]
        link = response.links.get("next")
        following = None if link is None else URL(str(link["url"]))
        if following is not None and following.origin() != URL(hub_url()).origin():
            raise ValueError(f"its next page is on another server: {following}")
        return jobs, None if following is None else str(following)

    async def _job(self, response: aiohttp.ClientResponse) -> JobDescription:
        return self._hidden(JobDescription.read(await as_object(response)))

    def _hidden(self, job: JobDescription) -> JobDescription:
        """Return the job without our secrets, which its message may repeat."""
        return replace(job, message=self.calls.secrets.hidden_in(job.message))


async def events_of(
    calls: HfCalls, url: str, *, follow: bool = False, params: Mapping[str, str] | None = None
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the JSON of the events at this URL; with `follow`, until the stream ends. To stop early, close it.

    The stream replays what there is, and then sends comments, or events without data, until there is more.
    """
    async with await calls.call("GET", url, as_stream, params=params) as response:
        lines = calls.lines(response, url, None)
        async with aclosing(lines):
            while True:
                line = ""
                with anyio.move_on_after(None if follow else _REPLAYED) as replaying:
                    line = await anext(lines, _END)
                waits = line.startswith(":") or line.strip() == "data:"
                if line == _END or replaying.cancelled_caught or (waits and not follow):
                    return
                if line.startswith("data:") and (event := _event(line)) is not None:
                    yield event


def price_per_hour(offers: Sequence[Mapping[str, Any]], flavor: str) -> float | None:
    """Return dollars per hour for this hardware in a list of the API; None if the list lacks it."""
    for offer in offers:
        price, unit = offer.get("unitCostUSD"), offer.get("unitLabel")
        if offer.get("name") == flavor and isinstance(price, int | float) and unit == "minute":
            return float(price * 60)
    return None


def _event(line: str) -> Mapping[str, Any] | None:
    """Return the JSON of a server-sent event; None if it holds something else."""
    with suppress(ValueError):
        event = orjson.loads(line.removeprefix("data:"))
        return event if isinstance(event, dict) else None
    return None


def _seconds(durations: object, name: str) -> int | None:
    seconds = durations.get(name) if isinstance(durations, dict) else None
    return seconds if isinstance(seconds, int) else None


async def _nothing(_response: aiohttp.ClientResponse) -> None:
    """Read nothing: only the status of the answer matters."""
