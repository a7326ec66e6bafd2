"""A ledger with a history: runs, windows and readings of past nights, written through the methods of the store."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.notification import Event, NotificationResult
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.readings import EVERY, Reading
from orchestrator.domain.run import RunState, Spec
from orchestrator.domain.terms import Spent, Terms
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.store import Store

NIGHT = datetime.fromisoformat("2026-11-20T00:00:00+00:00").timestamp()
HOUR = 3600.0


class Clock:
    """The clock of a history: it stands still until it is moved forward."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        self.now += 0.000001  # no two times are equal
        return self.now


@contextmanager
def clock_at(now: float) -> Iterator[Clock]:
    """For the block, make this whole process use a clock that stands still."""
    clock, real = Clock(now), time.time
    time.time = clock.time
    try:
        yield clock
    finally:
        time.time = real


@dataclass
class Night:
    """What happens in one run. `wrong`: which items fail, and how. `ends`: how; None for a process that is killed.

    `known`: items of an earlier run that are not asked again.
    """

    job: str
    begins: float
    items: int
    per_second: float = 20.0
    cold: float = 90.0
    idle: float = 0.0
    endpoint: str | None = "acme/embed"
    price: float | None = 1.8
    wrong: Sequence[tuple[FailureKind, int | None, str, Sequence[str]]] = ()
    ends: RunState | None = RunState.FINISHED
    error: str | None = None
    settles: int | None = None  # of the items; None for all of them
    tokens: int | None = 40  # of each answer
    in_flight: int = 16
    version: str = "1"
    deadline: float | None = None
    pauses: bool = True
    known: int = 0
    ids: Sequence[str] = field(default=())


async def live(store: Store, clock: Clock, night: Night) -> int:
    """Make it happen; return the number of the run. Afterwards the clock shows its end."""
    clock.now = night.begins
    process_id = await store.runs.register(host="elsewhere", pid=4711, pid_started=0.0, lease=30.0)
    about = {"jobfile": f"jobs/{night.job}.py", "output": f"out/{night.job}.jsonl"}
    run = await store.runs.take(Spec(night.job, f"{night.job} {night.version}", night.version, about), process_id)
    ids = [*night.ids, *(f"i{number}" for number in range(len(night.ids), night.items))]
    rows = [
        NewItem(name, night.version if number >= night.known else "known", "{}", None)
        for number, name in enumerate(ids)
    ]
    chunks = [rows[start : start + 500] for start in range(0, len(rows), 500)]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, chunks)
    await store.runs.ingested(run.id, total=len(rows), plan=plan, input_sha256=night.version)
    window = await _wake(store, clock, night, process_id, run.id)
    wrong = {
        name: RequestFailed(kind, said, status=status) for kind, status, said, names in night.wrong for name in names
    }
    settled = len(rows) - night.known if night.settles is None else night.settles
    await _settle(store, run.id, process_id, wrong, settled)
    seconds = await _read(store, clock, night, process_id, run.id, settled, len(wrong))
    if night.deadline is not None:
        async with store.database.write() as connection:
            await connection.execute("UPDATE run SET deadline = ? WHERE id = ?", (night.deadline, run.id))
    if night.ends is None:
        (me,) = [one for one in await store.runs.living() if one.id == process_id]
        await store.runs.bury(me)
        await store.items.expire(process_id)
        return run.id
    if window is not None:
        await _sleep(store, clock, night, window, process_id, seconds)
    await store.runs.end(run.id, process_id, night.ends, night.error)
    await store.items.release(process_id)
    await store.runs.leave(process_id)
    return run.id


async def _wake(store: Store, clock: Clock, night: Night, process_id: int, run_id: int) -> int | None:
    if night.endpoint is None:
        return None
    terms = Terms(night.endpoint, {"kind": "test"}, price_per_hour=night.price)
    window = await store.windows.enter(terms, process_id, run_id, night.job)
    assert window is not None
    if night.pauses:
        await store.windows.owe(window, terms, EndpointState.PAUSED)
    await store.windows.saw(window, EndpointState.AWAKE, "running")
    clock.now += night.cold
    return window


async def _sleep(store: Store, clock: Clock, night: Night, window: int, process_id: int, seconds: float) -> None:
    clock.now += night.idle
    spent = Spent(night.cold, seconds, night.idle, 4.0)
    await store.windows.leave(window, process_id, spent)
    clock.now += 4.0
    await store.windows.close(window, process_id, EndpointState.PAUSED, "paused", by="run", spent=spent)


async def _settle(store: Store, run_id: int, process_id: int, wrong: dict[str, RequestFailed], settled: int) -> None:
    left = settled
    while left:
        leased = await store.items.lease(run_id, process_id, 4)
        items = [item for part in leased for item in part.items][:left]
        left -= len(items)
        outcomes = [Discarded(wrong[item.id]) if item.id in wrong else Completed('"said"') for item in items]
        whole = [part.lease for part in leased if all(item in items for item in part.items)]
        await store.items.settle(
            [Settlement(item, outcome, 0.1) for item, outcome in zip(items, outcomes, strict=True)], whole
        )


async def _read(
    store: Store, clock: Clock, night: Night, process_id: int, run_id: int, settled: int, wrong: int
) -> float:
    """Return readings of a run that starts slowly, then oscillates, and ends with a tail."""
    begun, done, number = clock.now, 0.0, 0
    for ago in range(round(night.cold if night.endpoint else 0), 0, -round(EVERY)):
        await store.readings.note(run_id, Reading(begun - ago, process_id))
    await store.readings.note(run_id, Reading(begun, process_id, in_flight=4 if settled else 0))
    while done < settled:
        number += 1
        clock.now = begun + number * EVERY
        pace = min(1.0, number / 6) * (1 + 0.15 * math.sin(number / 5))
        done = min(float(settled), done + night.per_second * EVERY * pace)
        settled_now, bad = int(done), int(wrong * done / settled)
        tokens = None if night.tokens is None else settled_now * night.tokens
        flying = 0 if done >= settled else max(1, round(night.in_flight * min(1.0, number / 8)))
        latency = round(flying / night.per_second + 0.05 * math.cos(number / 3), 4) if flying else None
        reading = Reading(
            clock.now,
            process_id,
            settled_now - bad,
            bad,
            settled_now,
            None if tokens is None else tokens * 3,
            tokens,
            flying,
            latency,
        )
        await store.readings.note(run_id, reading)
    return clock.now - begun


async def a_bad_night(store: Store, clock: Clock) -> None:
    """Write two nights: the first went well; in the second, many things go wrong. Ends at half past eight."""
    first = NIGHT - 24 * HOUR + 2 * HOUR
    await live(store, clock, Night("embed", first, 9000, per_second=14.0, version="0"))
    await live(
        store,
        clock,
        Night("classify", first + 1.5 * HOUR, 4000, per_second=9.0, endpoint="acme/large", price=4.5, version="0"),
    )
    await live(
        store,
        clock,
        Night(
            "embed",
            NIGHT + 2 * HOUR,
            12_000,
            per_second=19.0,
            wrong=[
                (
                    FailureKind.REJECTED,
                    422,
                    "Input validation error: `inputs` must have less than 512 tokens",
                    ["i5", "i77", "i801"],
                ),
                (FailureKind.PARSE, None, "KeyError: <b>'label'</b> & more", ["<script>alert(1)</script>"]),
                (FailureKind.TIMEOUT, None, "no complete answer within 300 s", ["i900", "i901"]),
            ],
            ids=["<script>alert(1)</script>"],
        ),
    )
    await live(
        store,
        clock,
        Night(
            "classify",
            NIGHT + 2.4 * HOUR,
            4000,
            per_second=6.0,
            endpoint="acme/large",
            price=4.5,
            deadline=NIGHT + 2.5 * HOUR,
            idle=45.0,
        ),
    )
    await live(
        store,
        clock,
        Night(
            "translate",
            NIGHT + 3 * HOUR,
            800,
            endpoint="acme/nllb",
            settles=0,
            ends=RunState.FAILED,
            error="endpoint acme/nllb refuses every request: 401 Unauthorized; check the token in HF_TOKEN",
        ),
    )
    await live(
        store,
        clock,
        Night("caption", NIGHT + 4 * HOUR, 3000, per_second=5.0, endpoint="acme/vision", settles=1300, ends=None),
    )
    clock.now = NIGHT + 8.5 * HOUR
    await _around_it(store)


async def _around_it(store: Store) -> None:
    """Add a missed schedule, a broken job file, a queued run, and a hook that does not answer."""
    weekly = Submission("weekly", {"jobfile": "jobs/weekly.py"}, ["acme/h200"], NIGHT)
    run_id, _ = await store.queue.submit(weekly)
    daemon = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    claim = Claim(run_id, daemon)
    assert await store.queue.claim(daemon, NIGHT) == run_id
    await store.queue.requeue(claim, NIGHT + 22 * HOUR, "the provider has no machine for it just now", fruitless=True)
    await store.runs.leave(daemon)
    webhook = NotificationResult(
        "webhook to chat.example.org", Event.FINISHED, NIGHT + 3 * HOUR, ok=False, said="answered 503, 6 times"
    )
    await store.notifications.note(3, "msg_1", [webhook])
    schedule = (
        "INSERT INTO schedule (job, jobfile, about, endpoints, source, cron, tz, overlap, catch_up, catch_up_window, "
        "jitter) VALUES ('hourly', 'jobs/hourly.py', '{}', '[]', 'file', '0 * * * *', 'UTC', 'skip', 'latest', 0, 0)"
    )
    slot = "INSERT INTO slot (schedule_id, slot, outcome, at) VALUES (1, ?, 'missed', ?)"
    broken = (
        "INSERT INTO broken_file (path, error, at) VALUES ('jobs/new.py', 'line 3: SyntaxError: invalid syntax', ?)"
    )
    async with store.database.write() as connection:
        await connection.execute(schedule)
        for hour in (4, 5, 6):
            await connection.execute(slot, (NIGHT + hour * HOUR, NIGHT + 7 * HOUR))
        await connection.execute(broken, (NIGHT + 7 * HOUR,))
