"""LoadFigures: what a load test, or one step of it, has measured; and LoadTest, the whole of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from orchestrator.domain.load import Objective, Stair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.charges import Charge
    from orchestrator.domain.engine_metrics import EngineSample
    from orchestrator.domain.load import Load
    from orchestrator.domain.load_tally import LoadSlice, LoadTally
    from orchestrator.domain.percentiles import PercentileHistogram
    from orchestrator.domain.terms import Billed, Spent

_BUSY = 0.9  # of its time that the event loop's thread computes
_LATE, _LATE_PART = 0.01, 0.05  # seconds, and of the median latency: by which what we do is late


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of durations in seconds, within half a percent, and the longest one exactly.

    A request that got no answer counts with the time that we waited, so a percentile beyond that is a lower bound.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    longest: float
    mean: float

    @staticmethod
    def of(durations: PercentileHistogram) -> Percentiles | None:
        """Return the percentiles; None if there are no durations."""
        found = [durations.percentile(percent) for percent in (50, 90, 95, 99)]
        if durations.mean is None:
            return None
        p50, p90, p95, p99 = (inf if one is None else one for one in found)
        return Percentiles(p50, p90, p95, p99, durations.longest, durations.mean)


@dataclass(frozen=True, slots=True)
class LoadCause:
    """Requests that failed for one cause, and what the first of them was told."""

    kind: str
    status: int | None
    requests: int
    message: str


@dataclass(frozen=True, slots=True)
class ObjectiveVerdict:
    """Whether an objective was met. `reached`: that percentile in seconds; None if so many requests were not answered.

    `part`: the percentage of requests answered in time. Requests that failed or were cut off count as late.
    """

    objective: Objective
    met: bool
    part: float
    reached: float | None


@dataclass(frozen=True, slots=True)
class Client:
    """How this process kept up. `late`: seconds by which the event loop was late (99 %).

    `cpu`: cores that the process used; `busy`: part of its time that the event loop's thread computed. `limit`: why it,
    and not the endpoint, may have been the limit; None if it was not.
    """

    late: float
    cpu: float
    busy: float
    limit: str | None


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What happened under one load. Rates are of what was answered while requests were sent, for `seconds`.

    `late`: from the planned arrival until sending, of an open loop. `first_text`: from the planned arrival until the
    first part of an answer; None unless answers are sent in parts. `goodput`: requests a second that met the
    objectives, of those answered; None without any. Otherwise as in `LoadTally`.
    """

    load: str
    concurrency: int | None
    seconds: float
    planned: int
    sent: int
    answered: int
    failed: int
    unsent: int
    cut_off: int
    held_back: int
    statuses: Mapping[str, int]
    causes: Sequence[LoadCause]
    from_arrival: Percentiles | None
    from_sending: Percentiles | None
    late: Percentiles | None
    first_text: Percentiles | None
    requests_per_second: float
    items_per_second: float
    tokens_in_per_second: float | None
    tokens_out_per_second: float | None
    mean_in_flight: float
    most_in_flight: int
    verdicts: Sequence[ObjectiveVerdict]
    goodput: float | None
    client: Client

    @property
    def stair(self) -> Stair:
        """This load as a step of a sweep."""
        kept = all(verdict.met for verdict in self.verdicts)
        return Stair(self.concurrency or 0, self.items_per_second, kept)


@dataclass(frozen=True, slots=True)
class LoopTime:
    """What the client itself needed for a load: of so many seconds, processor seconds of the process and of the thread.

    `late`: by which the event loop was late. `no_room`: requests that this machine could not send.
    """

    late: PercentileHistogram
    seconds: float
    cpu: float
    thread: float
    no_room: int = 0


def figures_of(
    tally: LoadTally,
    now: float,
    *,
    load: str,
    open_: bool,
    concurrency: int | None,
    objectives: Sequence[Objective],
    loop: LoopTime,
) -> LoadFigures:
    """Return the figures of a tally at a moment on its clock."""
    seconds, answered = tally.rated(now)
    latency = Percentiles.of(tally.from_arrival.merged(tally.waited_from_arrival))
    verdicts = [verdict_on(objective, tally) for objective in objectives]
    in_time = min((tally.from_arrival.within(objective.seconds) for objective in objectives), default=None)

    def rate(number: int | None) -> float | None:
        return None if number is None else number / seconds

    return LoadFigures(
        load,
        concurrency,
        seconds,
        tally.planned,
        tally.sent,
        tally.answered,
        tally.failures,
        tally.unsent,
        tally.cut_off,
        tally.held_back,
        tally.statuses,
        [LoadCause(*cause, number, tally.messages[cause]) for cause, number in tally.failed.most_common()],
        latency,
        Percentiles.of(tally.from_sending.merged(tally.waited_from_sending)),
        Percentiles.of(tally.late) if open_ else None,
        Percentiles.of(tally.until_first_text),
        answered.requests / seconds,
        answered.items / seconds,
        rate(answered.tokens_in),
        rate(answered.tokens_out),
        tally.mean_in_flight,
        tally.most_in_flight,
        verdicts,
        in_time * answered.requests / seconds / tally.answered if in_time and tally.answered else in_time,
        client_of(loop, latency),
    )


def verdict_on(objective: Objective, tally: LoadTally) -> ObjectiveVerdict:
    """Return whether the requests of a tally met an objective. Without any requests, it is not met."""
    all_ = tally.from_arrival.merged(tally.waited_from_arrival)
    everything = all_.number + tally.without_latency
    reached = all_.percentile(objective.percent, tally.without_latency)
    part = tally.from_arrival.within(objective.seconds) / everything * 100 if everything else 0.0
    known = None if reached is None or reached == inf else reached
    return ObjectiveVerdict(objective, everything > 0 and part >= objective.percent, part, known)


def client_of(loop: LoopTime, latency: Percentiles | None) -> Client:
    """Return how this process kept up, and whether it was the limit."""
    late, cpu, busy = loop.late.percentile(99) or 0.0, loop.cpu / loop.seconds, loop.thread / loop.seconds
    limit = None
    if loop.no_room:
        limit = f"this machine had no room for another connection {loop.no_room:,} times"
    elif busy >= _BUSY:
        limit = f"its event loop computed for {min(busy, 1.0):.0%} of the time"
    elif late > max(_LATE, _LATE_PART * (latency.p50 if latency else 0.0)):
        limit = f"its event loop was {late * 1000:.0f} ms late (99 %)"
    return Client(late, cpu, busy, limit)


@dataclass(frozen=True, slots=True)
class ServerSide:
    """What the server said about itself at `/metrics` during a load test: the most of each figure.

    `preemptions`: by how many they have grown. A field is None if the server does not report it.
    """

    running: int | None = None
    waiting: int | None = None
    kv_use: float | None = None
    preemptions: int | None = None

    @staticmethod
    def of(samples: Sequence[EngineSample]) -> ServerSide | None:
        """Return what the samples say; None if there are none."""
        if not samples:
            return None
        evicted = [one.preemptions for one in samples if one.preemptions is not None]
        return ServerSide(
            max((one.running for one in samples if one.running is not None), default=None),
            max((one.waiting for one in samples if one.waiting is not None), default=None),
            max((one.kv_use for one in samples if one.kv_use is not None), default=None),
            evicted[-1] - evicted[0] if evicted else None,
        )


@dataclass(frozen=True, slots=True)
class LoadTest:
    """A whole load test. `steps`: one for each load; several for a sweep. `seconds`: those that were asked for.

    `first_answer`: seconds for the first request, which is sent alone and counts nowhere else. `cold_start`: seconds
    from resume until the endpoint answered, before it. `ended`: why it ended early; None if it did not. `knee`: of a
    sweep. `cost`: dollars, None if the price is not known; `remembered`: the concurrency that later runs begin with.
    """

    endpoint: str
    load: Load
    seconds: float
    items_per_request: int
    began_at: float  # seconds since 1970 UTC
    first_answer: float
    steps: Sequence[LoadFigures]
    course: Sequence[LoadSlice]
    server: ServerSide | None
    client: str  # which HTTP client has asked
    knee: Stair | None = None
    ended: str | None = None
    interrupted: bool = False
    remembered: int | None = None
    cold_start: float = 0.0
    spent: Spent | None = None  # None for an endpoint that does not bill
    charged: Charge | None = None  # for all answers; None for an endpoint that does not charge for them
    price_per_hour: float | None = None
    billed: Billed | None = None
    proof: str | None = None

    @property
    def shown(self) -> LoadFigures:
        """The figures that stand for all: those at the knee of a sweep, else the only or the last ones."""
        knee = self.knee
        return next((step for step in self.steps if knee and step.concurrency == knee.concurrency), self.steps[-1])

    @property
    def met(self) -> bool:
        """Whether every objective was met, at the knee if it is a sweep."""
        return all(verdict.met for verdict in self.shown.verdicts)

    @property
    def cost(self) -> float | None:
        """Dollars that the load test has cost; None if the price is not known."""
        if self.billed is not None and self.billed.dollars is not None:
            return self.billed.dollars
        if self.spent is not None:
            return self.spent.cost(self.price_per_hour)
        return None if self.charged is None else self.charged.dollars

    @property
    def cost_per_1000(self) -> float | None:
        """Dollars per 1,000 items at this load (at the knee of a sweep), with the endpoint awake only to work.

        Answers that are charged cost the same under any load.
        """
        if self.charged is not None and self.charged.requests:
            return self.charged.dollars / (self.charged.requests * self.items_per_request) * 1000
        if self.price_per_hour is None or not self.shown.items_per_second:
            return None
        return self.price_per_hour / 3600 / self.shown.items_per_second * 1000
