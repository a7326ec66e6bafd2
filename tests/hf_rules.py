"""An endpoint as Hugging Face runs it: states, billing, and served requests. `hf_service` serves it over HTTP.

Nothing here runs by itself: every access first applies the transitions that are due, at the time they were due.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BILLED = frozenset({"initializing", "running", "updating"})
AT_REST = frozenset({"paused", "failed", "scaledToZero"})  # can be resumed; any other state is "already running"
WAKING = frozenset({"scaledToZero", "pending", "initializing", "updating"})
DELETED = "deleted"  # never shown: the API then reports no such endpoint
SCALE_TO_ZERO_MINUTES = range(15, 2881)
COMPUTES = (("cpu", "intel-spr", 0.033), ("gpu", "nvidia-t4", 0.5), ("gpu", "nvidia-l4", 0.8))  # dollars an hour
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
WHOLE = frozenset({"image", "env", "secrets", "measure"})  # an update replaces these instead of merging them


class Refused(Exception):
    """A call answered with an error. Errors of the platform have a `code`, errors of a container do not."""

    def __init__(self, status: int, error: str, code: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error} | ({"code": code} if code else {})


class BadGateway(Refused):
    """The proxy found no endpoint behind it: HTML."""

    def __init__(self) -> None:
        super().__init__(502, "502 Bad Gateway")


PAUSED = (400, "Bad Request: The endpoint is paused, ask a maintainer to restart it", "BAD_REQUEST")
IN_ERROR = (400, "Bad Request: Your endpoint is in error, check its status on endpoints.huggingface.co", "BAD_REQUEST")
UNAVAILABLE = (503, "503 Service Unavailable", "SERVICE_UNAVAILABLE")
UNAUTHORIZED = (401, "401 Unauthorized", "UNAUTHORIZED")
NOT_FOUND = (404, "404 Not Found", "NOT_FOUND")


class Clock:
    """A clock that only goes forward, and can be made to jump."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self._started = time.monotonic()
        self._wall = time.time()

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self, moment: float) -> datetime:
        return datetime.fromtimestamp(self._wall + moment - self._started, UTC)

    def text(self, moment: float) -> str:
        """Format the time as the API does: the library insists on the Z."""
        return f"{self.wall(moment):%Y-%m-%dT%H:%M:%S.%f}Z"


@dataclass(frozen=True, slots=True)
class Script:
    """How an endpoint goes through its states. Durations in seconds; `math.inf` is never.

    `pause`: from the request to `paused`; until then the state is `pausing`, or stays unchanged.
    `bad_gateway`: 502 for so long after it reports running. `minute`: the length of a minute of scaleToZeroTimeout.
    `fails`: the next start ends in `failed`, the next update in `updateFailed`, with this message.
    `resume_resets_scaling`: to 1/1 replicas without a timer. `scaling_rolls`: updates of scaling alone roll over, too.
    """

    pending: float = 0.02
    initializing: float = 0.05
    updating: float = 0.05
    pause: float = 0.02
    pausing: str | None = None
    bad_gateway: float = 0.0
    minute: float = 60.0
    fails: str | None = None
    resume_resets_scaling: bool = True
    scaling_rolls: bool = True


@dataclass(frozen=True, slots=True)
class Interval:
    """Time spent in one state; `since` and `until` on the monotonic clock, the last one without an end."""

    state: str
    since: float
    at: datetime
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """An endpoint at one moment. `asked` counts requests that reached the model by input, `answered` its answers."""

    state: str
    message: str
    billed_seconds: float
    intervals: tuple[Interval, ...]
    scaling: dict[str, Any]
    asked: Counter[str]
    answered: Counter[str]
    in_flight: int
    peak: int

    @property
    def states(self) -> list[str]:
        """Every state it has been in, in order."""
        return [interval.state for interval in self.intervals]


@dataclass(frozen=True, slots=True)
class _Step:
    at: float
    state: str
    message: str


class HfEndpoint:
    """One endpoint, from its creation to its end, and its bill afterwards."""

    def __init__(self, spec: dict[str, Any], url: str, script: Script, clock: Clock, state: str = "pending") -> None:
        self.spec = merged(blank(), spec)
        self.url = url
        self.script = script
        self.message = ""
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.lines: list[tuple[float, str]] = []
        self.in_flight = self.peak = 0
        self._clock = clock
        self._created = self._used = clock.now()
        self._lost_until = 0.0
        self._ahead: list[_Step] = []
        self._intervals: list[Interval] = []
        self._enter(state, "", self._created)
        if state == "pending":
            self._start()

    # -- states ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return self._intervals[-1].state

    def advance(self) -> None:
        """Apply all transitions that are due."""
        now = self._clock.now()
        while self._ahead and self._ahead[0].at <= now:
            step = self._ahead.pop(0)
            self._enter(step.state, step.message, step.at)
        if not self._ahead and self.state == "running" and not self.in_flight and self._idle_end() <= now:
            self._enter("scaledToZero", "Endpoint scaled to zero", self._idle_end())

    def resume(self) -> None:
        if self.state not in AT_REST:
            raise Refused(400, "Bad Request: Endpoint is already running")
        if self.script.resume_resets_scaling:
            self.spec["compute"]["scaling"] |= {"minReplica": 1, "maxReplica": 1, "scaleToZeroTimeout": None}
        self._enter("pending", "Waiting to be scheduled", self._clock.now())
        self._start()

    def pause(self, seconds: float | None = None) -> None:
        """Pause it; safe to repeat. A pending start is dropped."""
        if self.state == "paused" or any(step.state == "paused" for step in self._ahead):
            return
        now = self._clock.now()
        if self.script.pausing is not None:
            self._enter(self.script.pausing, "Endpoint is pausing", now)
        self._ahead = [_Step(now + (self.script.pause if seconds is None else seconds), "paused", "Endpoint paused")]
        self.advance()

    def scale_to_zero(self) -> None:
        if self.state not in BILLED:
            raise Refused(400, f"Bad Request: cannot scale an endpoint to zero that is {self.state}")
        self.end("scaledToZero", "Endpoint scaled to zero")

    def end(self, state: str, message: str) -> None:
        """End it at once and drop all pending transitions."""
        self._ahead = []
        self._enter(state, message, self._clock.now())

    def update(self, changes: dict[str, Any]) -> None:
        """Merge the named settings; a running endpoint rolls over to them."""
        check_scaling(changes)
        self.spec = merged(self.spec, changes)
        only_scaling = changes.keys() == {"compute"} and changes["compute"].keys() <= {"scaling"}
        if (
            self._ahead
            or self.state not in {"running", "updateFailed"}
            or (only_scaling and not self.script.scaling_rolls)
        ):
            return
        now = self._clock.now()
        self._enter("updating", "Endpoint is updating", now)
        self._ahead = [self._outcome(now + self.script.updating, "updateFailed")]

    def lose_replica(self, seconds: float) -> None:
        self._lost_until = self._clock.now() + seconds

    def _start(self) -> None:
        scheduled = self._clock.now() + self.script.pending
        ready = scheduled + self.script.initializing
        self._ahead = [_Step(scheduled, "initializing", "Endpoint is initializing"), self._outcome(ready, "failed")]

    def _outcome(self, at: float, failure: str) -> _Step:
        fails = self.script.fails
        return _Step(at, "running", "Endpoint is ready") if fails is None else _Step(at, failure, fails)

    def _enter(self, state: str, message: str, at: float) -> None:
        if self._intervals:
            self._intervals[-1] = replace(self._intervals[-1], until=at)
        self._intervals.append(Interval(state, at, self._clock.wall(at)))
        self.message = message
        self.lines.append((at, f"{state}: {message}"))

    def _idle_end(self) -> float:
        scaling = self.spec["compute"]["scaling"]
        minutes = scaling["scaleToZeroTimeout"]
        if minutes is None or scaling["minReplica"]:
            return float("inf")
        return max(self._used, self._intervals[-1].since) + float(minutes) * self.script.minute

    # -- the data plane --------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Raises `Refused` if no replica can answer; a request wakes an endpoint that scaled to zero."""
        now = self._clock.now()
        if self.state == "scaledToZero":
            self._enter("initializing", "Endpoint is initializing", now)
            self._ahead = [self._outcome(now + self.script.initializing, "failed")]
        if self.state == "paused":
            raise Refused(*PAUSED)
        if self.state in {"failed", "updateFailed"}:
            raise Refused(*IN_ERROR)
        if self.state == DELETED:
            raise Refused(*NOT_FOUND)
        if self.state in WAKING or now < self._lost_until:
            raise Refused(*UNAVAILABLE)
        if now < self._intervals[-1].since + self.script.bad_gateway:
            raise BadGateway
        self._used = now

    @contextmanager
    def serving(self, texts: Sequence[str]) -> Iterator[None]:
        """Count one request in flight."""
        began = self._clock.now()
        self.asked.update(texts)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self._used = self._clock.now()
            self.latencies.append(self._used - began)

    # -- looking ---------------------------------------------------------------------------------------------------

    def billed_seconds(self) -> float:
        """The billed time so far: only while it initialises, runs and updates."""
        now = self._clock.now()
        session_costs = (stay for stay in self._intervals if stay.state in BILLED)
        return sum((now if stay.until is None else stay.until) - stay.since for stay in session_costs)

    def seen(self) -> Seen:
        scaling = dict(self.spec["compute"]["scaling"])
        counts = Counter(self.asked), Counter(self.answered)
        intervals = tuple(self._intervals)
        return Seen(
            self.state, self.message, self.billed_seconds(), intervals, scaling, *counts, self.in_flight, self.peak
        )

    def document(self) -> dict[str, Any]:
        """Return the JSON of the API. A paused endpoint keeps its url; one that was never scheduled has none yet."""
        target = max(1, self.spec["compute"]["scaling"]["minReplica"]) if self.state in BILLED | {"pending"} else 0
        ready = target if self.state == "running" and self._clock.now() >= self._lost_until else 0
        user = {"id": "1", "name": "tester"}
        status: dict[str, Any] = {"state": self.state, "message": self.message}
        if self._intervals[0].state != "pending" or len(self._intervals) > 1:
            status["url"] = self.url
        status |= {"createdAt": self._clock.text(self._created), "createdBy": user}
        status |= {"updatedAt": self._clock.text(self._intervals[-1].since), "updatedBy": user, "private": None}
        status |= {"readyReplica": ready, "targetReplica": target}
        status["lastUsedAt"] = self._clock.text(self._used) if self.asked else None
        return self.spec | {"status": status}

    def metrics(self) -> str:
        """Return the text of open-metrics."""
        times = sorted(self.latencies)
        lines = ["# TYPE latency_distribution summary"]
        lines += [f'latency_distribution{{quantile="{q}"}} {times[int(q * len(times))]}' for q in (0.5, 0.95) if times]
        lines += ["# TYPE http_requests counter"]
        for status, count in sorted(self.statuses.items()):
            lines.append(f'http_requests{{replica_id="0",status_code="{status}"}} {count}')
        lines += ["# TYPE cpu_usage_percent gauge", f'cpu_usage_percent{{replica_id="0"}} {float(self.in_flight)}']
        return "\n".join([*lines, "# EOF\n"])


def prices() -> dict[str, Any]:
    """Return instances and their prices; in other regions nothing is available now."""
    gone = _compute("gcp", "europe-west4", "nvidia-a100-x16", price=64.0, status="not_available", most=32)
    full = _compute("gcp", "europe-west4", "nvidia-a100-x2", price=8.0, status="low_availability", most=1)
    here = [
        _compute("aws", "us-east-1", f"{instance}-x1", accelerator=accelerator, price=price)
        for accelerator, instance, price in COMPUTES
    ]
    regions = {"aws": {"us-east-1": here}, "gcp": {"europe-west4": [gone, full]}}
    return {
        "vendors": [
            {"name": vendor, "regions": [{"name": region, "computes": computes} for region, computes in there.items()]}
            for vendor, there in regions.items()
        ]
    }


def _compute(
    vendor: str,
    region: str,
    instance: str,
    *,
    price: float,
    accelerator: str = "gpu",
    status: str = "available",
    most: int = 4,
) -> dict[str, Any]:
    kind, _, size = instance.rpartition("-")
    return {
        "id": f"{vendor}-{region}-{instance}",
        "accelerator": accelerator,
        "instanceType": kind,
        "instanceSize": size,
        "architecture": kind,
        "numAccelerators": int(size[1:]),
        "memoryGb": 16,
        **({"gpuMemoryGb": 24 * int(size[1:])} if accelerator == "gpu" else {}),
        "pricePerHour": price,
        "status": status,
        "quota": {"maxAccelerators": most, "usedAccelerators": 0},
    }


def blank() -> dict[str, Any]:
    """Return the defaults of the API for settings that a creator omits."""
    scaling = {"minReplica": 1, "maxReplica": 1, "scaleToZeroTimeout": None, "measure": {"pendingRequests": 1.5}}
    model = {"repository": "org/model", "revision": "main", "task": "text-classification", "framework": "pytorch"}
    return {
        "name": "",
        "type": "private",
        "accountId": None,
        "provider": {"vendor": "aws", "region": "us-east-1"},
        "healthRoute": "/health",
        "compute": {"accelerator": "cpu", "instanceType": "intel-spr", "instanceSize": "x1", "scaling": scaling},
        "model": model | {"image": {"huggingface": {}}, "env": {}, "secrets": {}, "args": None, "command": None},
        "route": {"domain": None, "path": None},
        "cacheHttpResponses": False,
        "tags": [],
    }


def merged(old: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the old settings with the named ones changed at every level."""
    both = dict(old)
    for key, value in changes.items():
        deep = isinstance(value, dict) and isinstance(old.get(key), dict) and key not in WHOLE
        both[key] = merged(old[key], value) if deep else value
    return both


def check_scaling(spec: dict[str, Any]) -> None:
    """Raises `Refused` for a timer that the API does not accept."""
    minutes = spec.get("compute", {}).get("scaling", {}).get("scaleToZeroTimeout")
    if minutes is not None and minutes not in SCALE_TO_ZERO_MINUTES:
        raise Refused(400, "Bad Request: scaleToZeroTimeout must be between 15 and 2880 minutes")


def answer_to(text: str, task: str = "text-classification") -> object:
    """Return the one right answer to an input: a label, or an embedding of four numbers, in a list."""
    digest = hashlib.sha256(text.encode()).digest()
    numbers = [byte / 256 for byte in digest[:4]]
    return numbers if task == "feature-extraction" else {"label": digest.hex()[:8], "score": numbers[0]}
