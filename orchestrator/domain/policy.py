"""Policy: how hard to try, how wide, how long."""

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
    """Exponential, capped, with full jitter downwards to half. All in seconds."""

    first: float = 0.5
    factor: float = 2.0
    cap: float = 60.0

    def __post_init__(self) -> None:
        if self.first < 0 or self.factor < 1 or self.cap < self.first:
            raise ValueError(f"backoff needs 0 <= first <= cap and factor >= 1, not {self}")

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); `jitter` is drawn from [0, 1)."""
        exponent = min(attempt - 1, 64)  # past this the cap has long been reached and the power overflows
        full = min(self.cap, self.first * self.factor**exponent)
        return full * (1 - jitter / 2)


_COUNTED = (
    "concurrency",
    "batch_size",
    "batch_tokens",
    "max_attempts",
    "rate_limit_attempts",
    "parse_attempts",
    "breaker",
    "max_answer_bytes",
    "max_error_bytes",
)
_LEAST = {
    "fallback_below": 0,
    "requests_per_minute": 0.001,
    "tokens_per_minute": 0.001,
    "timeout": 0.001,
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
_MAY_BE_NONE = {"requests_per_minute", "tokens_per_minute", "read_timeout"} | _BUDGETS


@dataclass(frozen=True, slots=True)
class Policy:
    """How a run treats its endpoint and its items. Durations are seconds.

    `concurrency`: requests in flight at once; a request counts until its answer is committed. "auto" finds out, by
    how much gets done, how many the endpoint can use, and remembers it.
    `batch_size`: items in one request at the most; None leaves it to the endpoint (local: 32 or 128, server: 1). "auto"
    finds out how many pay, where the wire has lists, and remembers it; a local worker, to which a request is no call of
    the model, finds out how many padded tokens pay in one call.
    `batch_tokens`: padded tokens in one request at the most, a token taken for four bytes: as many as its longest item
    has, for each of its items. For servers; a local worker counts real tokens itself.
    `order`: which items are asked first among those at hand: "length" the longest, so that batches need little padding
    and a run's tail is short; "prefix" in the order of their text, so that a server that caches prompts finds those
    with one beginning together; "input" as they came.
    `dedupe`: items of a run with one and the same request share one answer, unless it is drawn by chance (temperature
    above 0, `do_sample`).
    `hedge`: at the end of a run, when places are free, a request that takes twice as long as usual is asked once more,
    and the first answer counts.
    `fallback_below`: once fewer items than this are left, the job's `fallback` takes them and nothing else is woken.
    `max_attempts`: tries of one item before it is discarded; lifecycle trouble of the endpoint costs none.
    `rate_limit_attempts`: tries of one item that end in "too many requests": a budget of its own.
    `parse_attempts`: tries of one item whose answer the job's `parse` refuses.
    `requests_per_minute`, `tokens_per_minute`: what the endpoint's owner allows, where that is less than it can.
    `timeout`: for one attempt, from sending to the last byte. `connect_timeout`: until a connection stands.
    `read_timeout`: until the first byte of the answer, and from one byte to the next; None: as long as `timeout`.
    `max_answer_bytes`: of the body of one answer, unpacked; a larger one is a failed attempt. `max_error_bytes`: of the
    body of an answer that says that something failed; the rest of it is not read.
    `breaker`: that many items discarded in a row for one and the same cause, with no success between, stop the run.
    `max_error_rate`: stops the run, resumable, once more than this part of at least 100 settled items is discarded.
    `grace`: how long a first Ctrl-C, or a spent budget, waits for the answers in flight (they are paid for).
    `max_cost`, `max_awake`: dollars and seconds that endpoints may be awake for a run, all of its endpoints and starts
    together; then it stops. `max_cost_per_day`, `max_awake_per_day`: the same for all runs of the job in a day of UTC.
    `window`: the hours in which endpoints may be kept awake: "22:00-06:00", "mon-fri 22:00-06:00 Europe/Paris".
    `deadline`: when the answers are wanted, "8h" after it was submitted, or at "07:00 Europe/Paris". More urgent runs
    are taken first, and the report says what was late; nothing stops at it.
    `on_foreign_pause`: what to do when somebody else pauses the endpoint in mid-work: "stop" or "resume".
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
    backoff: Backoff = field(default_factory=Backoff)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 300.0
    connect_timeout: float = 30.0
    read_timeout: float | None = None
    max_answer_bytes: int = 64_000_000
    max_error_bytes: int = 100_000
    breaker: int = 20
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
            if not isinstance(value, int | float) or isinstance(value, bool) or value < least:
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
            raise ValueError(f"policy.{name} must be a text, not {text!r}")
        try:
            read(text)
        except ValueError as error:
            raise ValueError(f"policy.{name}: {error}") from error

    @property
    def open_window(self) -> Window | None:
        """The hours that `window` means."""
        return None if self.window is None else window_of(self.window)
