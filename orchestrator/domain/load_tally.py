"""LoadTally: what became of the requests of a load test, counted as they are sent and answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind
from orchestrator.domain.percentiles import PercentileHistogram
from orchestrator.domain.traffic import NONE, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_SLICES = 120  # of a load test's course
_LEAST_SLICE = 1.0  # seconds
_LONG = frozenset({FailureKind.TIMEOUT})  # would have taken longer than we waited

CauseKey = tuple[str, int | None]  # a kind of failure and the HTTP status, None without an answer


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: when it should have been sent, and when it was; moments on one clock. Equal without a schedule."""

    planned: float
    at: float


@dataclass(slots=True)
class LoadSlice:
    """A part of the course of a load test. `since`, `until`: seconds since its beginning.

    `latency`: from the planned arrival, of requests whose arrival was in this part.
    """

    since: float
    until: float
    planned: int = 0
    answered: int = 0
    failed: int = 0
    items: int = 0
    tokens: int = 0
    in_flight: float = 0.0  # the most
    latency: PercentileHistogram = field(default_factory=PercentileHistogram)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.until - self.since


class LoadCourse:
    """The course of a load test, in slices of at least a second."""

    def __init__(self, begun: float, seconds: float) -> None:
        self._begun = begun
        self._width = max(_LEAST_SLICE, seconds / _MOST_SLICES)
        count = max(1, round(seconds / self._width))
        self._slices = [LoadSlice(n * self._width, (n + 1) * self._width) for n in range(count)]
        self._slices[-1].until = max(self._slices[-1].until, seconds)
        self._latest = 0

    def at(self, moment: float) -> LoadSlice:
        """Return the slice of a moment; the last one has all that happens after the end."""
        number = min(len(self._slices) - 1, max(0, int((moment - self._begun) / self._width)))
        self._latest = max(self._latest, number)
        return self._slices[number]

    @property
    def slices(self) -> Sequence[LoadSlice]:
        """Those in which something happened, and those before."""
        return self._slices[: self._latest + 1]


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Numbers of what was answered. Tokens are None if the server has not reported any."""

    requests: int
    items: int
    tokens_in: int | None
    tokens_out: int | None


@dataclass(slots=True)
class LoadTally:
    """The requests of a load test, or of one step of it.

    `planned`: arrivals so far. `unsent`: those for which there was no place in flight until the end. `cut_off`:
    requests without an answer when the load test ended. `from_arrival`, `from_sending`: seconds until an answer;
    `until_first_text`: from the arrival until the first part of an answer that is sent in parts.
    `waited_from_arrival`, `waited_from_sending`: seconds for which we waited for requests that got no answer: those
    that timed out, were cut off, or could not be sent. Other failures have no latency, nor have requests that were sent
    before this tally began, under another load.
    """

    begun: float
    planned: int = 0
    sent: int = 0
    answered: int = 0
    unsent: int = 0
    cut_off: int = 0
    items: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    failed: Counter[CauseKey] = field(default_factory=Counter)
    messages: dict[CauseKey, str] = field(default_factory=dict)  # of the first failure for each cause
    from_arrival: PercentileHistogram = field(default_factory=PercentileHistogram)
    from_sending: PercentileHistogram = field(default_factory=PercentileHistogram)
    until_first_text: PercentileHistogram = field(default_factory=PercentileHistogram)
    waited_from_arrival: PercentileHistogram = field(default_factory=PercentileHistogram)
    waited_from_sending: PercentileHistogram = field(default_factory=PercentileHistogram)
    late: PercentileHistogram = field(default_factory=PercentileHistogram)  # from the planned arrival until sending
    held_back: int = 0  # arrivals that had to wait for a place in flight
    most_in_flight: int = 0
    _area: float = 0.0  # requests in flight, integrated over time
    _weighed: float = 0.0
    _closed: tuple[float, AnswerCounts] | None = None

    def __post_init__(self) -> None:
        self._weighed = self.begun

    def close(self, now: float, in_flight: int) -> None:
        """Record that no more requests are sent, and how many are in flight: rates are of the time until now."""
        self.weigh(now, in_flight)
        self._closed = self._closed or (now, self._answered)

    def rated(self, now: float) -> tuple[float, AnswerCounts]:
        """Return the seconds for which requests were sent until now, and what was answered meanwhile."""
        end, answered = self._closed or (now, self._answered)
        return max(end - self.begun, 1e-9), answered

    @property
    def _answered(self) -> AnswerCounts:
        return AnswerCounts(self.answered, self.items, self.tokens_in, self.tokens_out)

    def weigh(self, now: float, in_flight: int) -> None:
        """Record how many requests have been in flight since the last call."""
        if self._closed is None:
            self._area += in_flight * (now - self._weighed)
            self._weighed = now
            self.most_in_flight = max(self.most_in_flight, in_flight)

    @property
    def mean_in_flight(self) -> float:
        """The mean number of requests in flight while requests were sent."""
        return self._area / (self._weighed - self.begun) if self._weighed > self.begun else 0.0

    def send(self, request: Sent) -> None:
        """Count a request that goes out."""
        self.sent += 1
        self.late.add(request.at - request.planned)

    def answer(self, request: Sent, now: float, items: int, tokens: tuple[int | None, int | None]) -> None:
        """Count an answer to so many items, and the tokens in and out that the server has reported for it."""
        self.answered += 1
        self.items += items
        tokens_in, tokens_out = tokens
        self.tokens_in = self.tokens_in if tokens_in is None else (self.tokens_in or 0) + tokens_in
        self.tokens_out = self.tokens_out if tokens_out is None else (self.tokens_out or 0) + tokens_out
        if request.at >= self.begun:
            self.from_arrival.add(now - request.planned)
            self.from_sending.add(now - request.at)

    def fail(self, request: Sent, now: float, kind: str, status: int | None, message: str) -> None:
        """Count a failure."""
        cause = (kind, status_of(kind, status))
        self.failed[cause] += 1
        self.messages.setdefault(cause, message)
        if kind in _LONG:
            self._waited(request, now)

    def cut(self, request: Sent, now: float) -> None:
        """Count a request that got no answer before the end."""
        self.cut_off += 1
        self._waited(request, now)

    def leave_unsent(self, planned: float, now: float) -> None:
        """Count an arrival for which there was no place in flight before the end."""
        self.unsent += 1
        self.waited_from_arrival.add(max(0.0, now - planned))

    def _waited(self, request: Sent, now: float) -> None:
        self.waited_from_arrival.add(now - request.planned)
        self.waited_from_sending.add(now - request.at)

    @property
    def failures(self) -> int:
        """The number of failed requests."""
        return self.failed.total()

    @property
    def without_latency(self) -> int:
        """The number of failed requests that have no latency, which an objective counts as never answered."""
        return sum(number for (kind, _), number in self.failed.items() if kind not in _LONG)

    @property
    def statuses(self) -> dict[str, int]:
        """Requests by HTTP status; "none": without an answer."""
        found = Counter[str]({"200": self.answered} if self.answered else {})
        for (_, status), number in self.failed.items():
            found[NONE if status is None else str(status)] += number
        return dict(sorted(found.items()))
