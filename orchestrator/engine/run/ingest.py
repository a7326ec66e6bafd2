"""Ingest: a snapshot of the source becomes the items of a run; and the plan, which is the same without writing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.domain.events import SourceRead
from orchestrator.domain.measured_pace import Workload
from orchestrator.domain.placeholders import names_of
from orchestrator.domain.run import Plan
from orchestrator.engine.run.repeats import KEY, Repeats
from orchestrator.engine.run.snapshot import Snapshot, made_anew
from orchestrator.ports import WritesFiles
from orchestrator.store.known_chunks import Unlike
from orchestrator.store.row_classes import Chunk, NewItem, RepeatedId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.run import Run
    from orchestrator.engine.run.snapshot import Group
    from orchestrator.job import Job
    from orchestrator.ports import EventListener, Sink
    from orchestrator.store import Store
    from orchestrator.store.known_chunks import Earlier

_MOST_ADDED = 50_000  # rows that are compared with those of the chunks that are taken over
Look = Callable[["list[NewItem]"], Awaitable[None]]


async def ingest(snapshot: Snapshot, run: Run, store: Store, events: EventListener, look: Look | None = None) -> Plan:
    """Read the source into the run's snapshot; return what there is to do.

    Chunks whose texts are as in the run before are taken over from it; if the other rows make that impossible, every
    row is read. If the process is killed meanwhile, the run is never continued: a new one is created.

    `look` is called with every chunk.
    """
    if snapshot.job.incremental:
        snapshot.delivered = partial(store.delivered_items.delivered, run.job_id)
    before, last_key = await _before(snapshot, store, run.job_id, run.id, look), await store.snapshots.last_key()
    try:
        plan, total = await _read_in(snapshot, run, store, events, look, before)
    except Unlike:
        await store.snapshots.empty(run.id, run.job_id, last_key)
        plan, total = await _read_in(snapshot, run, store, events, look, None)
    plan = replace(plan, left_out=snapshot.left_out)
    await _check(snapshot, plan, run.job_id, run.names, store)
    sha256 = await to_thread.run_sync(_sha256_now, snapshot)
    if snapshot.input_sha256 not in {None, sha256}:
        raise UsageError(f"{snapshot.job.source.describe()} changed while it was read; run again when it is complete")
    await store.runs.ingested(run.id, total=total, plan=plan, input_sha256=sha256, made_as=snapshot.made_as)
    return plan


async def _before(
    snapshot: Snapshot, store: Store, job_id: int | None, run_id: int | None, look: Look | None
) -> Earlier | None:
    """Return the run whose chunks may be taken over; None if every row has to be read."""
    made = snapshot.made_as
    before = None if made is None or look is not None else await store.snapshots.earlier(job_id, run_id, made)
    worthwhile = before is not None and 2 * sum(known.texts is not None for known in before.chunks) > len(before.chunks)
    return before if worthwhile else None


async def _read_in(
    snapshot: Snapshot, run: Run, store: Store, events: EventListener, look: Look | None, before: Earlier | None
) -> tuple[Plan, int]:
    """Read the source into the run's snapshot; return what there is to do, and how many rows there are."""
    plan, position = Plan(), 0
    added: list[str] = []  # hashes of requests beside the chunks that are taken over
    async with _repeats() as requests:
        async with _opened(snapshot, before, partial(_note_requests, requests)) as groups:
            async for group in groups:
                for chunk in made_anew(group):
                    if look is not None:
                        await look(chunk)
                    if before is not None:
                        added += [item.hash for item in chunk if item.shares is not None]
                if len(added) > _MOST_ADDED:
                    raise Unlike
                try:
                    plan += await store.snapshots.ingest(run.id, run.job_id, position, group, snapshot.reuse, before)
                except RepeatedId as error:
                    raise UsageError(_twice(snapshot.job, error)) from error
                position += sum(map(len, group))
                events.emit(SourceRead(replace(plan, left_out=snapshot.left_out)))
        if before is not None:
            await store.snapshots.mark_same_anew(run.id, run.job_id, added)
            return plan, position
        found = requests.found()
        while pairs := await to_thread.run_sync(next, found, None):
            await store.snapshots.mark_same(run.id, pairs)
    return plan, position


async def plan(snapshot: Snapshot, store: Store, events: EventListener, look: Look | None = None) -> Plan:
    """Return what a run would do now; set `snapshot.load`. Reads the whole source, writes and calls nothing.

    `look` gets every chunk.
    """
    job_id = await store.runs.job_id(snapshot.job.name)
    if snapshot.job.incremental:
        snapshot.delivered = partial(store.delivered_items.delivered, job_id)
    before = await _before(snapshot, store, job_id, None, look)
    try:
        found = await _count(snapshot, job_id, store, events, look, before)
    except Unlike:
        found = await _count(snapshot, job_id, store, events, look, None)
    found = replace(found, left_out=snapshot.left_out)
    await _check(snapshot, found, job_id, names_of(0, snapshot.job.name, time.time()), store)
    return found


async def _count(
    snapshot: Snapshot,
    job_id: int | None,
    store: Store,
    events: EventListener,
    look: Look | None,
    before: Earlier | None,
) -> Plan:
    found, position, load = Plan(), 0, Workload()
    async with _repeats() as ids, _repeats() as requests:
        async with _opened(snapshot, before, partial(_note_ids, ids)) as groups:
            async for group in groups:
                for chunk in group:
                    part, asked = await store.snapshots.classify(job_id, chunk, snapshot.reuse, position, before)
                    requests.add([row.shares for row in asked], load.items)
                    found += part
                    load += Workload(len(asked), sum(len(row.request or "") for row in asked))
                    position += len(chunk)
                    if look is not None and isinstance(chunk, Chunk):
                        await look(chunk)
                events.emit(SourceRead(found))
        await to_thread.run_sync(_refuse_repeated, ids, snapshot)
        snapshot.load = await to_thread.run_sync(_asked_once, load, requests)
    return found


def _asked_once(load: Workload, requests: Repeats) -> Workload:
    """Return the load without the rows whose request an earlier row has. They are taken to be as long as all others."""
    items = load.items - sum(map(len, requests.found()))
    return Workload(items, round(load.size * items / load.items)) if load.items else load


async def _check(snapshot: Snapshot, found: Plan, job_id: int | None, names: Mapping[str, str], store: Store) -> None:
    """Refuse problems that show only once the whole source has been read.

    A source that had rows was probably lost, not emptied, and its output would be replaced by an empty one.
    """
    job, source = snapshot.job, snapshot.job.source.describe()
    if snapshot.never_kept is not None:
        raise UsageError(f"{source}: {snapshot.never_kept}; correct `keep` in the job file")
    if found.total or job.incremental or job.allow_empty or job_id is None:
        return
    earlier = await store.runs.latest_with_rows(job_id)
    if earlier is not None and await to_thread.run_sync(_may_have_output, job.sink, names):
        number, rows = earlier
        raise UsageError(
            f"{source} has no rows, but had {rows:,} in run {number}, whose output would be replaced by an empty one: "
            "check the source, or allow it to be empty with `--set allow_empty=True`"
        )


def _may_have_output(sink: Sink | None, names: Mapping[str, str]) -> bool:
    """Whether an output may exist at the sink's target: only a file on this machine is looked for."""
    if sink is None:
        return False
    named = sink.for_run(names)
    if not isinstance(named, WritesFiles) or not isinstance(named.path, Path):
        return True
    return named.path.exists()


def _sha256_now(snapshot: Snapshot) -> str:
    """Return the hash of the input after it was read; for an incremental job, rows may be added at any time."""
    if snapshot.job.incremental:
        return snapshot.input_sha256 or snapshot.sha256
    return snapshot.job.source.sha256() or snapshot.sha256


@asynccontextmanager
async def _opened(
    snapshot: Snapshot, before: Earlier | None, note: Callable[[Chunk, int], None]
) -> AsyncIterator[AsyncIterator[Group]]:
    """Open the groups, each read and noted in a worker thread; the source is closed when the block ends.

    A cancellation waits for the row in hand, not for its group.
    """
    groups = snapshot.groups(before)
    snapshot.halted = False
    position = 0
    reading = Lock()

    def next_group() -> Group | None:
        nonlocal position
        with reading:
            if (group := next(groups, None)) is not None:
                for chunk in group:
                    if isinstance(chunk, Chunk):
                        note(chunk, position)
                    position += len(chunk)
            return group

    def close() -> None:
        snapshot.halted = True
        with reading:
            groups.close()

    async def read() -> AsyncIterator[Group]:
        while (group := await to_thread.run_sync(next_group, abandon_on_cancel=True)) is not None:
            yield group

    try:
        yield read()
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(close)


@asynccontextmanager
async def _repeats() -> AsyncIterator[Repeats]:
    repeats = Repeats()
    try:
        yield repeats
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(repeats.close)


def _note_requests(requests: Repeats, chunk: Chunk, position: int) -> None:
    requests.add([item.shares for item in chunk], position)


def _note_ids(ids: Repeats, chunk: Chunk, position: int) -> None:
    ids.add([blake2b(item.item_id.encode(), digest_size=KEY).digest() for item in chunk], position)


def _refuse_repeated(ids: Repeats, snapshot: Snapshot) -> None:
    """Raise `UsageError` for the first row whose id an earlier row has, as a run does when it comes to that row."""
    repeated = [min(pairs) for pairs in ids.found()]
    if repeated and snapshot.delivered is None:
        position, first = min(repeated)
        with snapshot.rows() as rows:
            row = next(islice(rows, position, None))
        raise UsageError(_twice(snapshot.job, RepeatedId(str(row.id), first, position)))


def _twice(job: Job, repeated: RepeatedId) -> str:
    return (
        f"{job.source.describe()}: id {repeated.item_id!r} is in rows {repeated.first + 1} and "
        f"{repeated.position + 1}; make them unique, or leave out `id=` and let them be made from the content"
    )
