"""The live feed: what happens in the ledger, as server-sent events that all open streams share.

It looks once a second while a stream is open, and for a short time after that. What has changed becomes a frame with a
number; the latest frames are kept. A stream is a position among them, so two hundred streams cost no more memory than
one, and a stream that falls behind the kept frames is dropped. A client that comes back with the id of the last frame
it got receives those that followed, or a snapshot if they are gone.

It asks whether anything was committed (`Changes` in `store/changes.py`: SQLite's `data_version`, one PRAGMA), compares
`App.current()` with what it saw last, and reads on in the logs of runs, so that runs of any process show.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from secrets import token_hex
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import OrchestratorError
from orchestrator.report.listings import queue_json, run_json
from orchestrator.run_log import event_log, lines_after
from orchestrator.server.ownership import without_words
from orchestrator.store.changes import Changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.app import App
    from orchestrator.engine.current import Current

EVERY = 1.0  # seconds between two looks
AT_LEAST_EVERY = 10.0  # seconds: a process that is killed commits nothing
LINGER = 15.0  # seconds for which it goes on without a stream, so that a page that is loaded again misses nothing
KEPT = 500  # frames
QUEUE_SHOWN = 100  # queued runs in a frame; `/api/queue` has all
_LOG = logging.getLogger("orchestrator.server")


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """One server-sent event, encoded once for all streams."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FeedPlace:
    """A place in the feed: behind the frame with this number, of those made since the feed last began."""

    boot: str
    number: int


class Stream:
    """One client's place in the feed."""

    def __init__(self, feed: LiveFeed, last_id: str | None) -> None:
        self._feed = feed
        self._last_id = last_id
        self._place: FeedPlace | None = None

    async def next(self) -> bytes | None:
        """Return what is to be sent next, once there is something; None if the client was too slow. Can be cancelled.

        The first is a snapshot, or what followed the last frame that the client got.
        """
        found = await self._feed.after(self._place, self._last_id)
        if found is None:
            return None
        sent, self._place = found
        return sent


@dataclass(slots=True)
class _Known:
    """What the last look showed. Empty before the first one."""

    runs: dict[int, dict[str, object]] = field(default_factory=dict)  # those being executed
    queue: dict[str, object] = field(default_factory=dict)
    endpoints: dict[str, object] = field(default_factory=dict)
    newest: int | None = None
    read_to: dict[int, float] = field(default_factory=dict)  # the moment of each run's last reading
    offsets: dict[int, int | None] = field(default_factory=dict)  # of each run's log; None: its end
    reading: set[int] = field(default_factory=set)  # the runs whose logs may have new lines


class LiveFeed:
    """Frames about everything that happens. `follow` makes them, and runs as long as the server."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._streams = 0
        self._opened = anyio.Event()
        self._forget()

    def _forget(self) -> None:
        self._boot = token_hex(4)  # ids of another time are not ours
        self._number = 0
        self._frames: deque[EncodedEvent] = deque(maxlen=KEPT)
        self._known = _Known()
        self._ready, self._changed, self._woken_at = anyio.Event(), anyio.Event(), 0

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    @contextmanager
    def open(self, last_id: str | None = None) -> Iterator[Stream]:
        """Make frames as long as the block lasts. `last_id`: of the last frame that this client got before."""
        self._streams += 1
        self._opened.set()
        try:
            yield Stream(self, last_id)
        finally:
            self._streams -= 1

    async def after(self, place: FeedPlace | None, last_id: str | None) -> tuple[bytes, FeedPlace] | None:
        """Return what is to be sent at a place, once there is something, and the place behind it.

        None is the place of a new stream, which gets a snapshot, or what followed `last_id`. Returns None if frames
        that would have to be sent are gone.
        """
        while True:
            await self._ready.wait()
            if place is None:
                place = self._place_of(last_id)
            if place is None:
                return self._encoded("snapshot", self._number, self._snapshot()), FeedPlace(self._boot, self._number)
            if not self._keeps(place):
                return None
            missed = [frame for frame in self._frames if frame.number > place.number]
            if missed:
                return b"".join(frame.data for frame in missed), FeedPlace(self._boot, self._number)
            await self._changed.wait()

    def _place_of(self, last_id: str | None) -> FeedPlace | None:
        boot, _, number = (last_id or "").partition("-")
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            return None
        place = FeedPlace(boot, int(number))
        return place if self._keeps(place) else None

    def _keeps(self, place: FeedPlace) -> bool:
        """Whether all frames behind this place are kept."""
        oldest = self._frames[0].number if self._frames else self._number + 1
        return place.boot == self._boot and oldest - 1 <= place.number <= self._number

    def _snapshot(self) -> dict[str, object]:
        known = self._known
        return {"runs": list(known.runs.values()), "queue": known.queue, "endpoints": known.endpoints}

    # -- making --------------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Make frames while streams are open. A failure of the ledger is logged, and it is read again."""
        while True:
            await self._opened.wait()
            async with Changes.watch(self._app.store.database) as changes:
                await self._look_on(changes)
            if not self._streams:  # otherwise one was opened just now
                self._opened = anyio.Event()
                self._forget()

    async def _look_on(self, changes: Changes) -> None:
        """Look until no stream has been open for a while."""
        idle, looked_at = 0.0, -math.inf
        while idle < LINGER:
            try:
                if await changes.seen() or anyio.current_time() >= looked_at + AT_LEAST_EVERY:
                    looked_at = -math.inf
                    await self._look()
                    looked_at = anyio.current_time()
                await self._take_lines()
                self._wake()
            except OrchestratorError as error:
                _LOG.warning("the live feed cannot read the ledger: %s", error)
            await anyio.sleep(EVERY)
            idle = 0.0 if self._streams else idle + EVERY

    async def _look(self) -> None:
        """Compare the ledger with what is known, and make a frame of each difference."""
        known = self._known
        current = await self._discreet(await self._app.current(set(known.runs), known.newest))
        self._compare_runs(current)
        self._compare("queue", known.queue, _queue_of(current))
        self._compare("endpoints", known.endpoints, _endpoints_of(current))
        known.newest = current.newest
        await self._take_readings()

    async def _discreet(self, current: Current) -> Current:
        """Return what happens without words about runs of batches: every role reads the same frames."""
        spoken = [run for run, _ in current.runs if run.why or run.error] + [one for one in current.queue if one.why]
        private = {one.id for one in spoken if await self._app.store.batches.owner_of_run(one.id) is not None}
        runs = [(without_words(run) if run.id in private else run, counts) for run, counts in current.runs]
        queue = [without_words(one) if one.id in private else one for one in current.queue]
        return replace(current, runs=runs, queue=queue)

    def _wake(self) -> None:
        """Let the streams send what is new."""
        self._ready.set()
        if self._number != self._woken_at:
            self._woken_at = self._number
            self._changed.set()
            self._changed = anyio.Event()

    def _compare_runs(self, current: Current) -> None:
        """Make frames of runs that have changed, and of those that have ended or begun."""
        known = self._known
        for run, counts in current.runs:
            shown = run_json(run, counts)
            if known.runs.get(run.id) != shown:
                self._add("run", shown)
            if run.holder is not None:
                known.runs[run.id] = shown
            else:
                known.runs.pop(run.id, None)
            is_new = known.newest is not None and run.id > known.newest
            known.offsets.setdefault(run.id, 0 if is_new else None)
            known.reading.add(run.id)
        for gone in known.runs.keys() - {run.id for run, _ in current.runs}:
            del known.runs[gone]

    def _compare(self, event: str, known: dict[str, object], found: dict[str, object]) -> None:
        if found != known:
            known.clear()
            known.update(found)
            self._add(event, found)

    async def _take_readings(self) -> None:
        """Read on in the measurements of the runs executed since the last look; those before the first are left out."""
        readings, read_to = self._app.store.readings, self._known.read_to
        for run_id in sorted(self._known.reading):
            if run_id not in read_to:
                earlier = [] if self._known.offsets[run_id] == 0 else await readings.of(run_id, 1)
                read_to[run_id] = max([0.0, *(one.at for one in earlier)])
            for reading in await readings.after(run_id, read_to[run_id]):
                read_to[run_id] = reading.at
                self._add("reading", {"run": run_id, **asdict(reading)})

    async def _take_lines(self) -> None:
        """Read on in the logs of the runs that were executed since the last time."""
        known, ledger = self._known, self._app.store.database.real_path
        wanted = {run: known.offsets[run] for run in sorted(known.reading)}
        for run, (lines, offset) in (await to_thread.run_sync(_read_on, ledger, wanted)).items():
            known.offsets[run] = offset
            if lines:
                # every role reads the same frames
                private = await self._app.store.batches.owner_of_run(run) is not None
                self._add("log", {"run": run, "lines": [] if private else lines})
        known.reading &= known.runs.keys()

    def _add(self, event: str, content: Mapping[str, object]) -> None:
        self._number += 1
        self._frames.append(EncodedEvent(self._number, self._encoded(event, self._number, content)))

    def _encoded(self, event: str, number: int, content: Mapping[str, object]) -> bytes:
        head = f"id: {self._boot}-{number}\ndata: ".encode()
        return head + exact_json.dumps({"event": event, **content}, default=str) + b"\n\n"


def _queue_of(current: Current) -> dict[str, object]:
    shown = queue_json(current.queue[:QUEUE_SHOWN], time.time(), served=current.served)
    return {**shown, "waiting": sum(not one.executing for one in current.queue)}


def _endpoints_of(current: Current) -> dict[str, object]:
    return {"awake": [asdict(window) | {"is_debt": window.is_debt} for window in current.windows]}


def _read_on(ledger: Path, wanted: dict[int, int | None]) -> dict[int, tuple[list[str], int]]:
    return {run: lines_after(event_log(ledger, run), offset) for run, offset in wanted.items()}
