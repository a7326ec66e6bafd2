"""Ingest: rows -> items of a run, as a stream; and the plan, which is the same without writing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import from_thread, to_thread

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.events import SourceRead
from orchestrator.domain.placeholders import names_of
from orchestrator.domain.request import columns_in
from orchestrator.domain.run import Plan
from orchestrator.engine.run.drafts import Draft, DraftMaker
from orchestrator.ports import SelectsColumns, WritesFiles
from orchestrator.store import Seen
from orchestrator.store.snapshots import NewItem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.ports import EventListener, Sink, Source
    from orchestrator.store import Store

CHUNK_ROWS = 500  # rows that are leased together
CHUNK_BYTES = 4_000_000  # bytes of requests: huge rows make small chunks, so that a lease fits in memory
GROUP_CHUNKS = 8  # chunks in one transaction
Look = Callable[["list[NewItem]"], Awaitable[None]]

Group = list[list[NewItem]]
Delivered = Callable[[list[NewItem]], Coroutine[Any, Any, frozenset[int]]]


@dataclass(slots=True)
class Snapshot:
    """What is read from a source for one run. `sha256`, set after the last group, covers ids and requests in order.

    `input_sha256`: of the source just before it is read, if it has one. `delivered` says which rows earlier runs have
    delivered: they are left out, and counted in `left_out`. `never_kept`, set with `sha256`, names a column in `keep`
    that no row has. `reuse`: other jobs whose answers are taken over.
    """

    job: Job
    identity: Mapping[str, object]
    limit: int | None
    input_sha256: str | None = None
    delivered: Delivered | None = None
    reuse: Sequence[int] = ()
    sha256: str = field(default="", init=False)
    left_out: int = field(default=0, init=False)
    never_kept: str | None = field(default=None, init=False)

    def groups(self) -> Generator[Group, None, None]:
        """Yield groups of chunks of items. Blocking: for a worker thread."""
        digest = hashlib.sha256()
        with self._rows() as rows, Seen.open() as ids, Seen.open() as requests:
            make = DraftMaker(self.job, self.identity)
            chunks = self._named(_chunks(_items(make, islice(rows, self.limit))), ids, digest)
            if self.delivered is not None:
                chunks = _chunks(self._new(chunks, self.delivered))
            position = 0
            group: Group = []
            for chunk in chunks:
                group.append(_mark_same(chunk, requests, position))
                position += len(chunk)
                if len(group) == GROUP_CHUNKS:
                    yield group
                    group = []
            if group:
                yield group
            self.never_kept = make.never_kept(rows)
        self.sha256 = digest.hexdigest()

    @contextmanager
    def _rows(self) -> Iterator[Iterator[Row]]:
        """Open the source's rows; none if it has no files and the job is incremental."""
        with ExitStack() as stack:
            try:
                rows = stack.enter_context(_narrowed(self.job).rows())
            except NoFiles:
                if not self.job.incremental:
                    raise
                rows = iter(())
            yield rows

    def _named(self, chunks: Iterable[list[Draft]], ids: Seen, digest: hashlib._Hash) -> Iterator[list[NewItem]]:
        position = 0
        for chunk in chunks:
            named = _name(chunk, ids, position, self.job)
            digest.update("".join(f"{item.item_id}\0{item.hash}\n" for item in named).encode())
            position += len(named)
            yield named

    def _new(self, chunks: Iterable[list[NewItem]], delivered: Delivered) -> Iterator[NewItem]:
        """Yield rows that no earlier run has delivered, once each, as files of different nights may repeat rows."""
        with Seen.open() as versions, Seen.open() as ids:
            for chunk in chunks:
                earlier = from_thread.run(delivered, chunk)
                times = versions.count([f"{item.item_id}\0{item.hash}" for item in chunk], 0)
                new = [
                    item
                    for place, (item, (_, seen)) in enumerate(zip(chunk, times, strict=True))
                    if seen == 1 and place not in earlier
                ]
                self.left_out += len(chunk) - len(new)
                for item, (_, seen) in zip(new, ids.count([item.item_id for item in new], 0), strict=True):
                    if seen > 1:
                        raise UsageError(
                            f"{self.job.source.describe()}: id {item.item_id!r} is in two new rows that differ; "
                            "make them unique, or leave out `id=` and let them be made from the content"
                        )
                yield from new


async def ingest(snapshot: Snapshot, run: Run, store: Store, events: EventListener, look: Look | None = None) -> Plan:
    """Read the source into the run's snapshot; return what there is to do.

    If the process is killed meanwhile, the run is never continued: a new one is created.

    `look` is called with every chunk.
    """
    plan, position = Plan(), 0
    if snapshot.job.incremental:
        snapshot.delivered = partial(store.delivered_items.delivered, run.job_id)
    async with _opened(snapshot) as groups:
        async for group in groups:
            if look is not None:
                for chunk in group:
                    await look(chunk)
            plan += await store.snapshots.ingest(run.id, run.job_id, position, group, snapshot.reuse)
            position += sum(map(len, group))
            events.emit(SourceRead(replace(plan, left_out=snapshot.left_out)))
    plan = replace(plan, left_out=snapshot.left_out)
    await _check(snapshot, plan, run.job_id, run.names, store)
    sha256 = await to_thread.run_sync(_sha256_now, snapshot)
    if snapshot.input_sha256 not in {None, sha256}:
        raise UsageError(f"{snapshot.job.source.describe()} changed while it was read; run again when it is complete")
    await store.runs.ingested(run.id, total=position, plan=plan, input_sha256=sha256)
    return plan


async def plan(snapshot: Snapshot, store: Store, events: EventListener, look: Look | None = None) -> Plan:
    """Return what a run would do now. Reads the whole source, writes and calls nothing. `look` gets every chunk."""
    job_id = await store.runs.job_id(snapshot.job.name)
    if snapshot.job.incremental:
        snapshot.delivered = partial(store.delivered_items.delivered, job_id)
    found = Plan()
    async with _opened(snapshot) as groups:
        async for group in groups:
            for chunk in group:
                found += await store.snapshots.classify(job_id, chunk, snapshot.reuse)
                if look is not None:
                    await look(chunk)
            events.emit(SourceRead(found))
    found = replace(found, left_out=snapshot.left_out)
    await _check(snapshot, found, job_id, names_of(0, snapshot.job.name, time.time()), store)
    return found


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


def _narrowed(job: Job) -> Source:
    """Return the job's source without the columns that the job does not use, if it can leave them out."""
    used = columns_in(job.request)
    if used is None or not isinstance(job.source, SelectsColumns):
        return job.source
    return job.source.selecting(used | set(job.kept))


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
async def _opened(snapshot: Snapshot) -> AsyncIterator[AsyncIterator[Group]]:
    """Open the groups, each read in a worker thread; the source is closed when the block ends."""
    groups = snapshot.groups()

    async def read() -> AsyncIterator[Group]:
        while (group := await to_thread.run_sync(partial(next, groups, None))) is not None:
            yield group

    try:
        yield read()
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(groups.close)


Requesting = TypeVar("Requesting", Draft, NewItem)


def _items(make: DraftMaker, rows: Iterable[Row]) -> Iterator[Draft]:
    """Render and hash rows. A row from which no request can be made still becomes an item, with the reason."""
    amiss: list[str] = []
    count = 0
    for count, row in enumerate(rows, start=1):
        draft = make(row)
        if draft.amiss is not None:
            amiss.append(draft.amiss)
        if len(amiss) == count == CHUNK_ROWS:
            break
        yield draft
    if amiss and len(amiss) == count:  # the first chunk is not full, so nothing was ingested yet
        raise UsageError(f"{make.source}: {amiss[0]}")


def _chunks(items: Iterable[Requesting]) -> Iterator[list[Requesting]]:
    chunk: list[Requesting] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += len(item.request or "")
        if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _name(chunk: list[Draft], seen: Seen, position: int, job: Job) -> list[NewItem]:
    """Give every item its id: the source's own, which must be unique in a run, or one made from its content."""
    named = []
    counts = seen.count([item.given_id or str(item.content_id) for item in chunk], position)
    for offset, (item, (first, times)) in enumerate(zip(chunk, counts, strict=True)):
        if item.given_id is not None and times > 1 and not job.incremental:
            raise UsageError(
                f"{job.source.describe()}: id {item.given_id!r} is in rows {first + 1} and {position + offset + 1}; "
                "make them unique, or leave out `id=` and let them be made from the content"
            )
        name = item.given_id or (str(item.content_id) if times == 1 else f"{item.content_id}-{times}")
        named.append(NewItem(name, item.identity, item.request, item.kept, item.unreadable, item.shares))
    return named


def _mark_same(chunk: list[NewItem], seen: Seen, position: int) -> list[NewItem]:
    """Mark items that may share an answer with the first one that has the same request."""
    if not any(item.shares for item in chunk):
        return chunk
    firsts = seen.count([item.shares or item.hash for item in chunk], position)
    return [
        replace(item, same_as=first) if item.shares and first < position + offset else item
        for offset, (item, (first, _)) in enumerate(zip(chunk, firsts, strict=True))
    ]
