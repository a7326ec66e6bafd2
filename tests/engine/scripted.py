"""An endpoint behind the port that behaves as a test tells it; everything above the port is real."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import orjson

from orchestrator import Backoff, Job, Policy, Weighted
from orchestrator.domain.answer import Answer
from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, EndpointRefused, EndpointSilent, FailureKind, NoRoom, RequestFailed
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.terms import Terms
    from orchestrator.engine.run.run_result import RunResult
    from orchestrator.ports import Again
    from orchestrator.store import Store

QUICK = Backoff(first=0.001, cap=0.001)


@dataclass
class Scripted:
    """Answers a text in upper case, unless the text says otherwise. Records requests and calls.

    A process may only ask after it has seen the endpoint answer since the last resume.
    """

    batch_size: int = 1
    max_in_flight: int | None = None
    name: str = "scripted"
    model: str = "m"
    startup_timeout: float = 5.0
    look_every: float = 0.01
    wakes: bool = True
    installs: int = 0  # state requests after a resume before its prerequisites are ready
    moves: bool = False  # its address is known only to those who have seen it awake themselves
    lag: int = 0  # state requests after a resume that still show the old state
    pauses: bool = True
    deaf: int = 0  # pause requests without effect
    pause_fails: list[Exception] = field(default_factory=list)  # exceptions of the next ones
    silent: int = 0  # state requests that fail
    fails: Exception | None = None  # the exception of every request
    terms: Terms | None = None
    price: float | None = None
    use_price: UsePrice | None = None
    before_resume: Callable[[], Awaitable[None]] | None = None
    paused_by_others_at: str | None = None  # by this text, once
    paused_as: EndpointState = EndpointState.PAUSED
    slow_after: int | None = None  # requests; the later ones never return
    gate: anyio.Event | None = None  # no request is answered before
    stuck_over: str | None = None  # a text that is answered only the second time
    fails_again: bool = False  # not even then
    poisons: bool = False  # every text is refused
    fails_with: Callable[[Sequence[str]], Exception | None] | None = None  # the exception of a request with these texts
    each: float = 0.0  # seconds added for each item of a request
    per_character: float = 0.0  # seconds added for each character of its texts
    slots: anyio.Semaphore | None = None  # as many requests are worked on at once, the others wait
    tokens: int | None = None  # seconds that each answer reports
    metrics: str | None = None
    machine: Mapping[str, object] = field(default_factory=dict)  # what computes its answers
    delay: float = 0.0  # seconds that each request takes
    rate_limited: int = 0  # requests from now on
    refuses: Mapping[str, float | None] = field(default_factory=dict)  # texts, with the seconds that it announces
    reasks: int = 0  # further requests for each one
    most: int | None = None  # items accepted in one request
    chokes_over: int | None = None  # items: it runs out of memory, and does not say how many it accepts
    room: int | None = None  # connections that this machine can open at once
    no_room_at: set[int] = field(default_factory=set)  # which requests, counted from 0, get none
    refused_room: int = 0
    trouble: int = 0  # requests from now on that fail as a whole
    breaks: RequestFailed | None = None  # the failure of a request with a text that contains "broken"
    lost_over: str | None = None  # a text that loses the connection each time
    state: EndpointState = EndpointState.PAUSED
    seen_ready: bool = False
    asked: list[list[str]] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)  # times, one for each of these
    calls: list[str] = field(default_factory=list)
    looks: int = 0
    tries: int = 0  # whether it answers
    in_flight: int = 0
    most_in_flight: int = 0
    outdated: list[EndpointState] = field(default_factory=list)  # the next states shown

    def identity(self, policy: Policy) -> Mapping[str, object]:
        return {"kind": "scripted", "model": self.model}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[_Control]:
        try:
            yield _Control(self)
        finally:
            await anyio.lowlevel.checkpoint()  # as when a session is closed

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.asked for text in batch]


@dataclass
class ScriptedGroup:
    """An endpoint of several scripted servers: those in `present`, which a test may change."""

    present: list[Scripted]
    name: str = "group"
    startup_timeout: float = 5.0
    changed: anyio.Event | None = None  # set after a change; None: there will be none
    terms: Terms | None = None

    def identity(self, policy: Policy) -> Mapping[str, object]:
        return {"kind": "scripted", "model": "m"}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[_GroupControl]:
        yield _GroupControl(self)

    def join(self, *members: Scripted) -> None:
        self._change([*self.present, *members])

    def leave(self, *members: Scripted) -> None:
        self._change([one for one in self.present if one not in members])

    def _change(self, present: list[Scripted]) -> None:
        assert self.changed is not None
        self.present = present
        self.changed.set()


class _Control:
    def __init__(self, endpoint: Scripted) -> None:
        self._endpoint = endpoint
        self._saw: EndpointState | None = None
        self._said: EndpointState | None = None
        self.look_every = endpoint.look_every
        self.name = endpoint.name

    @property
    def terms(self) -> Terms | None:
        return self._endpoint.terms

    @property
    def status_text(self) -> str:
        return str(self._said or self._endpoint.state)

    @property
    def installing(self) -> bool:
        return self._endpoint.installs > 0

    async def price(self) -> float | None:
        return self._endpoint.price

    async def answers(self) -> bool:
        self._endpoint.tries += 1
        if self._endpoint.moves and self._saw is not EndpointState.AWAKE:
            return False
        self._endpoint.seen_ready = self._endpoint.state is EndpointState.AWAKE and not self.installing
        return self._endpoint.seen_ready

    async def resume(self) -> None:
        self._endpoint.calls.append("resume")
        self._endpoint.seen_ready = False
        if self._endpoint.before_resume is not None:
            await self._endpoint.before_resume()
        self._endpoint.outdated = [self._endpoint.state] * self._endpoint.lag
        self._endpoint.state = EndpointState.AWAKE if self._endpoint.wakes else EndpointState.STARTING

    async def pause(self, *, to_zero: bool = False) -> None:
        self._endpoint.calls.append("scale to zero" if to_zero else "pause")
        if self._endpoint.pause_fails:
            raise self._endpoint.pause_fails.pop()
        self._endpoint.deaf -= 1
        if self._endpoint.pauses and self._endpoint.deaf < 0:
            self._endpoint.state = EndpointState.SCALED_TO_ZERO if to_zero else EndpointState.PAUSED

    async def state(self) -> EndpointState:
        self._said = await self._look()
        return self._said

    async def _look(self) -> EndpointState:
        self._endpoint.looks += 1
        if self._endpoint.silent:
            self._endpoint.silent -= 1
            raise EndpointSilent("no answer")
        if self._endpoint.outdated:
            return self._endpoint.outdated.pop()
        if self.installing and not self._endpoint.state.asleep:
            self._endpoint.installs -= 1
            return EndpointState.STARTING
        self._saw = self._endpoint.state
        return self._saw

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[_Data]:
        yield _Data(self._endpoint)


class _GroupControl(MemberGroup[_Control]):
    """The control plane of a fixed group, except for its members."""

    def __init__(self, group: ScriptedGroup) -> None:
        self._group = group
        self.terms = group.terms
        self._controls = dict[str, _Control]()
        super().__init__([self._control_of(one) for one in group.present] or [_Control(Scripted())])

    async def members(self) -> AsyncGenerator[Sequence[_Control]]:
        while True:
            yield [self._control_of(one) for one in self._group.present]
            if self._group.changed is None:
                return
            await self._group.changed.wait()
            self._group.changed = anyio.Event()

    def _control_of(self, member: Scripted) -> _Control:
        return self._controls.setdefault(member.name, _Control(member))


class _Data:
    def __init__(self, endpoint: Scripted) -> None:
        self._endpoint = endpoint
        self.max_in_flight = endpoint.max_in_flight
        self.quiet_until = 0.0
        self.limits = Limits(endpoint.batch_size)
        self.computed_with = endpoint.machine

    async def metrics(self) -> str | None:
        return self._endpoint.metrics

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        endpoint = self._endpoint
        assert endpoint.seen_ready
        assert all(type(request) is bytes for request in requests)
        texts = [_text(orjson.loads(request)) for request in requests]
        self._find_room()
        endpoint.asked.append(texts)
        endpoint.asked_at.append(time.time())
        endpoint.in_flight += 1
        endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        try:
            async with endpoint.slots or nullcontext():
                characters = sum(map(len, texts))
                await anyio.sleep(endpoint.delay + endpoint.each * len(texts) + endpoint.per_character * characters)
            if endpoint.gate is not None:
                await endpoint.gate.wait()
            if endpoint.slow_after is not None and len(endpoint.asked) > endpoint.slow_after:
                await anyio.sleep_forever()
            if endpoint.stuck_over in texts:
                if endpoint.texts.count(str(endpoint.stuck_over)) == 1:
                    await anyio.sleep_forever()
                if endpoint.fails_again:
                    raise RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)
            if endpoint.paused_by_others_at in texts:
                endpoint.paused_by_others_at = None
                endpoint.state = endpoint.paused_as
                raise EndpointLost("paused")
            fails = endpoint.fails if endpoint.fails_with is None else endpoint.fails_with(texts)
            if fails is not None:
                raise fails
            for _ in range(endpoint.reasks):
                if again is not None and await again():
                    endpoint.asked_at.append(time.time())
            return self._answer(texts)
        finally:
            endpoint.in_flight -= 1

    def _find_room(self) -> None:
        endpoint = self._endpoint
        number = len(endpoint.asked) + endpoint.refused_room
        if number in endpoint.no_room_at or (endpoint.room is not None and endpoint.in_flight >= endpoint.room):
            endpoint.refused_room += 1
            raise NoRoom("Too many open files")

    def _answer(self, texts: list[str]) -> list[object]:
        if any("killer" in text for text in texts):
            self._endpoint.state = EndpointState.PAUSED
            raise EndpointLost("the worker died", blames_items=True)
        if any("forbidden" in text for text in texts):
            raise EndpointRefused("u answered 403 (flagged): check what the token may do")
        self._break(texts)
        if self._endpoint.lost_over in texts:
            raise EndpointLost("503 behind a healthy proxy")
        for text in texts:
            if text in self._endpoint.refuses or "*" in self._endpoint.refuses:
                wait = self._endpoint.refuses.get(text, self._endpoint.refuses.get("*"))
                raise RequestFailed(FailureKind.RATE_LIMITED, "slow down", status=429, retry_after=wait)
        if self._endpoint.rate_limited:
            self._endpoint.rate_limited -= 1
            raise RequestFailed(FailureKind.RATE_LIMITED, "slow down", status=429, retry_after=0.01)
        if self._endpoint.most is not None and len(texts) > self._endpoint.most:
            most = self._endpoint.most
            raise RequestFailed(FailureKind.REJECTED, "the list is too long", status=422, most=most)
        if self._endpoint.chokes_over is not None and len(texts) > self._endpoint.chokes_over:
            raise RequestFailed(FailureKind.DUBIOUS, "CUDA out of memory", status=424)
        if self._endpoint.poisons or any("poison" in text for text in texts):
            raise RequestFailed(FailureKind.REJECTED, "bad input", status=400)
        return [self._one(text) for text in texts]

    def _break(self, texts: list[str]) -> None:
        if self._endpoint.trouble:
            self._endpoint.trouble -= 1
            raise RequestFailed(FailureKind.UNAVAILABLE, "trouble", status=500)
        if self._endpoint.breaks is not None and any("broken" in text for text in texts):
            raise self._endpoint.breaks

    def _one(self, text: str) -> object:
        if "busy" in text and self._endpoint.texts.count(text) <= int(text.split()[1]):
            return RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)
        return text.upper() if self._endpoint.tokens is None else Answer(text.upper(), self._endpoint.tokens, None)


def _text(said: object) -> str:
    return str(said["inputs"]) if isinstance(said, dict) else str(said)


def job_of(
    texts: Sequence[str],
    endpoint: Scripted | ScriptedGroup | Sequence[Scripted | ScriptedGroup | Weighted],
    folder: Path,
    policy: Policy | None = None,
    fallback: Scripted | None = None,
) -> Job:
    source = IterableSource([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)], id="id")
    policy = policy or Policy(backoff=QUICK)
    return Job("scripted", source, endpoint, JsonlSink(folder / "out.jsonl"), policy=policy, fallback=fallback)


async def run(job: Job, store: Store, stop: Stop | None = None) -> RunResult:
    return await run_job(RunRequest(job), store, Progress(), stop or Stop(), UNGUARDED)


async def tenant(store: Store) -> Tenant:
    """Register a process that may use an endpoint."""
    number = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=60.0)
    return Tenant(store, number, Progress(), nullcontext, None, "job")


def outputs(job: Job) -> dict[str, object]:
    return {
        record["id"]: record["output"] for record in map(orjson.loads, Path(str(job.output)).read_bytes().splitlines())
    }
