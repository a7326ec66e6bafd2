"""Policy: concurrency, retries, timeouts, budgets and the other limits of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from orchestrator.domain.batching import Order
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.window import window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.domain.window import Window


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with a cap; jitter takes off up to half of a delay. All in seconds."""

    first: float = 0.5
    factor: float = 2.0
    cap: float = 60.0

    def __post_init__(self) -> None:
        if self.first < 0 or self.factor < 1 or self.cap < self.first:
            raise ValueError(f"backoff needs 0 <= first <= cap and factor >= 1, not {self}")

    def delay(self, attempt: int, jitter: float) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (from 1); `jitter` is drawn from [0, 1)."""
        exponent = min(attempt - 1, 64)  # beyond this, the cap has long been reached and the power overflows
        full = min(self.cap, self.first * self.factor**exponent)
        return full * (1 - jitter / 2)


_COUNTED = (
    "concurrency",
    "batch_size",
    "batch_tokens",
    "max_attempts",
    "rate_limit_attempts",
    "parse_attempts",
    "max_asks",
    "breaker",
    "max_answer_bytes",
    "max_error_bytes",
)
_LEAST = {
    "fallback_below": 0,
    "requests_per_minute": 0.001,
    "tokens_per_minute": 0.001,
    "timeout": 0.001,
    "item_timeout": 0.001,
    "connect_timeout": 0.001,
    "read_timeout": 0.001,
    "grace": 0.0,
    "max_error_rate": 0.0,
    "max_cost": 0.0,
    "max_awake": 0.0,
    "max_cost_per_day": 0.0,
    "max_awake_per_day": 0.0,
}
_BUDGETS = {"max_cost", "max_awake", "max_cost_per_day", "max_awake_per_day"}
_MAY_BE_NONE = {"requests_per_minute", "tokens_per_minute", "read_timeout", "item_timeout"} | _BUDGETS


@dataclass(frozen=True, slots=True)
class Policy:
    """How a run treats its endpoint and its items. Durations are seconds.

    `concurrency`: requests in flight at once; a request counts until its answer is committed. "auto" measures how many
    the endpoint can use, by throughput, and remembers the result.
    `batch_size`: most items in one request; None leaves it to the endpoint (local: 32 or 128, server: 1). "auto"
    measures how many are worthwhile, if the wire supports lists, and remembers the result; for a local worker, whose
    model calls do not correspond to requests, it measures how many padded tokens are worthwhile in one call.
    `batch_tokens`: most padded tokens in one request, at four bytes per token: the length of its longest item times the
    number of its items. For servers; a local worker counts real tokens itself.
    `order`: which of the available items are asked first. "length": the longest, so that batches need little padding
    and the run has a short tail. "prefix": sorted by their text, so that a server that caches prompts gets those with
    the same beginning together. "input": in the order of the source.
    `dedupe`: items of a run with identical requests share one answer, unless answers are sampled (temperature above 0,
    `do_sample`).
    `hedge`: at the end of a run, when there are free places, a request that takes twice as long as usual is sent a
    second time, and the first answer counts.
    `fallback_below`: once fewer items than this are left, the job's `fallback` takes them and nothing else is woken.
    `max_attempts`: attempts per item before it is discarded; attempts lost because the endpoint went away do not count.
    `rate_limit_attempts`: attempts per item that end in "too many requests", counted separately.
    `parse_attempts`: attempts per item whose answer the job's `parse` refuses.
    `max_asks`: requests, and calls of functions, that a rollout may make for one item; one more discards it.
    `item_timeout`: seconds for the rollout of one item, from the first request that is sent; None: no limit.
    `requests_per_minute`, `tokens_per_minute`: what the endpoint's owner allows, if that is less than it can handle.
    `timeout`: for one attempt, from sending to the last byte. `connect_timeout`: until the connection is established.
    `read_timeout`: until the first byte of the answer, and from one byte to the next; None: as long as `timeout`.
    `max_answer_bytes`: size limit for the uncompressed body of one answer; a larger one is a failed attempt.
    `max_error_bytes`: how much of the body of an error response is read. `keep_error_bodies`: the ledger keeps it with
    the attempt, up to 64 KiB and without secrets; the runs of batches have this on.
    `breaker`: stops the run after this many items in a row were discarded for the same cause, with no success between.
    `breaker_on_rejected`: also for requests that the server rejects for what is in them (400, 413, 422); the runs of
    batches have this off.
    `max_error_rate`: stops the run (resumable) if more than this fraction of at least 100 settled items is discarded.
    `grace`: how long a first Ctrl-C or a spent budget waits for the answers in flight, since they are paid for.
    `max_cost`, `max_awake`: dollars and seconds for which endpoints may be awake for a run, summed over all endpoints
    and starts; then the run stops. `max_cost_per_day`, `max_awake_per_day`: the same for all runs of the job in a UTC
    day.
    `window`: the hours in which endpoints may be kept awake: "22:00-06:00", "mon-fri 22:00-06:00 Europe/Paris".
    `deadline`: when the answers are needed: "8h" after submission, or at "07:00 Europe/Paris". More urgent runs are
    taken first, and the report says what was late; the run does not stop at its deadline.
    `on_foreign_pause`: what to do if the endpoint is paused from outside during the run: "stop" or "resume".
    """

    concurrency: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] | None = None
    batch_tokens: int = 16_384
    order: Order = "length"
    dedupe: bool = True
    hedge: bool = False
    fallback_below: int = 0
    max_attempts: int = 5
    rate_limit_attempts: int = 50
    parse_attempts: int = 1
    max_asks: int = 1000
    item_timeout: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 300.0
    connect_timeout: float = 30.0
    read_timeout: float | None = None
    max_answer_bytes: int = 64_000_000
    max_error_bytes: int = 100_000
    keep_error_bodies: bool = False
    breaker: int = 20
    breaker_on_rejected: bool = True
    max_error_rate: float = 0.5
    grace: float = 10.0
    max_cost: float | None = None
    max_awake: float | None = None
    max_cost_per_day: float | None = None
    max_awake_per_day: float | None = None
    window: str | None = None
    deadline: str | None = None
    on_foreign_pause: Literal["stop", "resume"] = "stop"

    def __post_init__(self) -> None:
        for name in _COUNTED:
            value = getattr(self, name)
            if (name, value) in {("batch_size", None), ("batch_size", "auto"), ("concurrency", "auto")}:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"policy.{name} must be a whole number of at least 1, not {value!r}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                raise ValueError(f"policy.{name} must be a number of at least {least:g}, not {value!r}")
        if self.order not in get_args(Order):
            raise ValueError(f"policy.order must be one of {', '.join(get_args(Order))}, not {self.order!r}")
        if self.on_foreign_pause not in {"stop", "resume"}:
            raise ValueError(f"policy.on_foreign_pause must be 'stop' or 'resume', not {self.on_foreign_pause!r}")
        for name, read in (("window", window_of), ("deadline", partial(deadline_at, submitted_at=0.0))):
            self._check_text(name, read)

    def _check_text(self, name: str, read: Callable[[str], object]) -> None:
        text = getattr(self, name)
        if text is None:
            return
        if not isinstance(text, str):
            raise ValueError(f"policy.{name} must be a string, not {text!r}")
        try:
            read(text)
        except ValueError as error:
            raise ValueError(f"policy.{name}: {error}") from error

    @property
    def open_window(self) -> Window | None:
        """The parsed `window`; None if there is none."""
        return None if self.window is None else window_of(self.window)
