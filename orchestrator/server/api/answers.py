"""What `/api` answers, for the OpenAPI document. It is what the commands print with `--json`; moments are UTC seconds.

Tests compare answers with these declarations. An answer may have more fields than its declaration.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """An object in an answer. No field is left out."""

    model_config = ConfigDict(extra="allow")


class Counts(ResponseModel):
    """The number of items of a run by state."""

    total: int
    completed: int
    discarded: int
    leased: int


class Run(ResponseModel):
    """A run in a list. `rate`: items per second, while a process executes it."""

    run: int
    job: str
    state: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    due_at: float | None
    counts: Counts
    rate: float | None
    seconds_left: float | None
    why: str | None
    error: str | None


class Runs(ResponseModel):
    """A page of runs, newest first. `next` is `before` of the next page; null on the last one."""

    runs: list[Run]
    next: int | None


class Cause(ResponseModel):
    """Discarded items that failed in the same way. `sample` is the id of one of them, for `like`."""

    kind: str
    status: int | None
    message: str
    items: int
    sample: str


class Failures(ResponseModel):
    """Discarded items of a run, grouped by cause, the most frequent first."""

    failures: list[Cause]


class Cost(ResponseModel):
    """One line of a bill. `dollars` is null if a price is not known."""

    what: str
    seconds: float
    dollars: float | None


class AskTotal(ResponseModel):
    """What a rollout has asked one endpoint; "" stands for calls of functions. `seconds`: of all requests together."""

    endpoint: str
    asks: int
    discarded: int
    retried: int
    tokens_in: int | None
    tokens_out: int | None
    seconds: float


class Status(ResponseModel):
    """A run as `orchestrator status --json` prints it, and what it has cost so far."""

    run: int
    job: str
    state: str
    counts: Counts
    rate: float | None
    seconds_left: float | None
    cost_left: float | None
    tokens_in: int | None
    tokens_out: int | None
    traffic: dict[str, object]
    asks: list[AskTotal]
    noted: dict[str, int]
    waiting: str | None
    error: str | None
    failures: list[Cause]
    workers: list[dict[str, object]]
    cost: Cost | None


class Item(ResponseModel):
    """An item in a list."""

    id: str
    position: int
    state: str
    attempts: int
    output: object
    error: dict[str, object] | None
    notes: list[str]


class Items(ResponseModel):
    """A page of items in input order. `next` is `after` of the next page; null on the last one."""

    items: list[Item]
    next: int | None


class Attempt(ResponseModel):
    """One attempt. Failed ones also have `kind`, `status` and `message`."""

    number: int
    outcome: str
    seconds: float
    at: float


class Ask(ResponseModel):
    """One ask of a rollout. `endpoint`: null for a call of a function. `outcome`: null if it is not settled yet."""

    number: int
    endpoint: str | None
    step: str | None
    request: object
    outcome: str | None
    answer: object
    attempts: int
    seconds: float | None
    at: float | None
    tokens_in: int | None
    tokens_out: int | None
    notes: list[str]
    failures: list[dict[str, object]]


class ItemDetail(ResponseModel):
    """One item with its request, every attempt, its answer, and what a rollout has asked for it."""

    id: str
    position: int
    state: str
    kept: object
    request: object
    attempts: list[Attempt]
    answer: object
    output: object
    asks: list[Ask]


class Reading(ResponseModel):
    """The counters of a process since it began the run, at a moment. `latency`: the median since the last one."""

    at: float
    process_id: int
    completed: int
    discarded: int
    requests: int
    tokens_in: int | None
    tokens_out: int | None
    in_flight: int
    latency: float | None


class Readings(ResponseModel):
    """Measurements of a run, oldest first."""

    readings: list[Reading]


class Queued(ResponseModel):
    """A run in the queue. `stands` says in words what it waits for."""

    id: int
    job: str
    state: str
    due_at: float
    priority: int
    deadline: float | None
    held: bool
    executing: bool
    endpoints: list[str]
    submitted_at: float
    tries: int
    why: str | None
    waits_for: list[int]
    stands: str


class Queue(ResponseModel):
    """The runs being executed, then those that wait, in their order. `served`: whether a daemon is running."""

    served: bool
    queue: list[Queued]


class Schedules(ResponseModel):
    """All schedules, each with what was decided about its last slot, and job files that could not be used."""

    served: bool
    schedules: list[dict[str, object]]
    broken: list[dict[str, object]]


class Window(ResponseModel):
    """The latest awake window of an endpoint. `billed_to` is null while it is open."""

    endpoint: str
    owed: bool
    price_per_hour: float | None
    billed_from: float
    billed_to: float | None
    closed_by: str | None
    looked_at: float
    seen: str | None
    said: str | None
    users: list[dict[str, object]]
    last_run: int | None
    billed_seconds: float | None
    billed_dollars: float | None
    is_debt: bool


class Receipt(ResponseModel):
    """One use of an awake window by a run."""

    endpoint: str
    window_id: int
    job: str | None
    run_id: int | None
    since: float
    until: float | None
    spent: dict[str, float]
    price_per_hour: float | None
    billed_from: float
    billed_to: float | None
    closed_by: str | None
    said: str | None
    billed_seconds: float | None
    billed_dollars: float | None


class Debt(ResponseModel):
    """A pause that is still owed."""

    endpoint: str
    opened_at: float


class Endpoints(ResponseModel):
    """How endpoints were left, what used them when, and pauses that are owed. No provider is called."""

    endpoints: list[Window]
    receipts: list[Receipt]
    owed: list[Debt]


class Costs(ResponseModel):
    """A bill."""

    by: str
    costs: list[Cost]


class Report(ResponseModel):
    """The report of a period or a run, as `orchestrator report --json` prints it (docs/report.md)."""

    since: float
    until: float
    totals: dict[str, object]
    runs: list[dict[str, object]]


class Retried(ResponseModel):
    """The queued run that asks `items` discarded items again. `served`: whether a daemon is running that takes it."""

    run: int
    job: str
    items: int
    served: bool


class Submitted(ResponseModel):
    """The queued run. `new`: false if it was submitted with the same key before."""

    run: int
    job: str
    new: bool
    state: str
    due_at: float
    served: bool


class Scheduled(ResponseModel):
    """The schedule that was changed."""

    job: str
    paused: bool
    next_slot: float | None


class Error(ResponseModel):
    """Why a request failed."""

    message: str
    code: str


class Failed(ResponseModel):
    """The body of every failure."""

    error: Error
