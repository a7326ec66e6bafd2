"""Ingest: rows -> items of a run, as a stream; and the plan, which is the same without writing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import chain, islice, starmap
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
from orchestrator.engine.run.known_rows import Text, compared, hash_of, made_as
from orchestrator.engine.run.repeats import KEY, Repeats
from orchestrator.ports import ReadsTexts, SelectsColumns, WritesFiles
from orchestrator.store import Seen
from orchestrator.store.known_chunks import KnownChunk, Unlike
from orchestrator.store.snapshots import Chunk, NewItem, RepeatedId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.ports import EventListener, Sink, Source
    from orchestrator.store import Store
    from orchestrator.store.known_chunks import Earlier

CHUNK_ROWS = 500  # rows that are leased together
CHUNK_BYTES = 4_000_000  # bytes of requests: huge rows make small chunks, so that a lease fits in memory
GROUP_CHUNKS = 8  # chunks in one transaction
_MOST_ADDED = 50_000  # rows that are compared with those of the chunks that are taken over
Look = Callable[["list[NewItem]"], Awaitable[None]]

Group = list[Chunk | KnownChunk]
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

    @property
    def made_as(self) -> str | None:
        """See `known_rows.made_as`."""
        return made_as(self.job, self.identity)

    def groups(self, before: Earlier | None = None) -> Generator[Group, None, None]:
        """Yield groups of chunks of items. Blocking: for a worker thread.

        `before`: the run of which unchanged chunks are taken over.
        """
        digest = hashlib.sha256()
        with ExitStack() as stack:
            make, contents = DraftMaker(self.job, self.identity), stack.enter_context(Seen.open())
            drafts, rest = self._drafts(make, before, stack)
            seals = self.made_as is not None
            chunks: Iterator[Chunk | KnownChunk] = (_numbered(chunk, contents, seals=seals) for chunk in drafts)
            if self.input_sha256 is None and not seals:
                chunks = _digested(_made_anew(chunks), digest)
            if self.delivered is not None:
                chunks = map(Chunk, _chunks(self._new(_made_anew(chunks), self.delivered)))
            while group := list(islice(chunks, GROUP_CHUNKS)):
                yield group
            self.never_kept = make.never_kept(rest)
            if self.never_kept is not None and before is not None:
                raise Unlike  # the rows taken over may have it
        self.sha256 = digest.hexdigest()

    def _drafts(
        self, make: DraftMaker, before: Earlier | None, stack: ExitStack
    ) -> tuple[Iterator[list[Draft] | KnownChunk], Iterator[Row]]:
        """Open the source; return the chunks, and the rows beyond the limit."""
        source = self.job.source
        if before is not None and isinstance(source, ReadsTexts):
            texts = stack.enter_context(source.texts())
            if texts is None:
                raise Unlike
            made = partial(_made, make, source)
            return compared(before, islice(texts, self.limit), CHUNK_ROWS, made), starmap(source.row_of, texts)
        rows = stack.enter_context(self.rows())
        return _chunks(_items(make, islice(rows, self.limit))), rows

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Open the source's rows; none if it has no files and the job is incremental."""
        with ExitStack() as stack:
            try:
                rows = stack.enter_context(_narrowed(self.job).rows())
            except NoFiles:
                if not self.job.incremental:
                    raise
                rows = iter(())
            yield rows

    def _new(self, chunks: Iterable[Chunk], delivered: Delivered) -> Iterator[NewItem]:
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
                for chunk in _made_anew(group):
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
    """Return what a run would do now. Reads the whole source, writes and calls nothing. `look` gets every chunk."""
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
    found, position = Plan(), 0
    async with _repeats() as ids:
        async with _opened(snapshot, before, partial(_note_ids, ids)) as groups:
            async for group in groups:
                for chunk in group:
                    found += await store.snapshots.classify(job_id, chunk, snapshot.reuse, position, before)
                    position += len(chunk)
                    if look is not None and isinstance(chunk, Chunk):
                        await look(chunk)
                events.emit(SourceRead(found))
        await to_thread.run_sync(_refuse_repeated, ids, snapshot)
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
async def _opened(
    snapshot: Snapshot, before: Earlier | None, note: Callable[[Chunk, int], None]
) -> AsyncIterator[AsyncIterator[Group]]:
    """Open the groups, each read and noted in a worker thread; the source is closed when the block ends."""
    groups = snapshot.groups(before)
    position = 0

    def next_group() -> Group | None:
        nonlocal position
        if (group := next(groups, None)) is not None:
            for chunk in group:
                if isinstance(chunk, Chunk):
                    note(chunk, position)
                position += len(chunk)
        return group

    async def read() -> AsyncIterator[Group]:
        while (group := await to_thread.run_sync(next_group)) is not None:
            yield group

    try:
        yield read()
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(groups.close)


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


def _made_anew(chunks: Iterable[Chunk | KnownChunk]) -> Iterator[Chunk]:
    return (chunk for chunk in chunks if isinstance(chunk, Chunk))


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


Requesting = TypeVar("Requesting", Draft, NewItem)


def _items(make: DraftMaker, rows: Iterable[Row]) -> Iterator[Draft]:
    """Render and hash rows. A row from which no request can be made still becomes an item, with the reason."""
    drafts = map(make, rows)
    amiss: list[Draft] = []
    for draft in islice(drafts, CHUNK_ROWS):
        amiss.append(draft)
        if draft.amiss is None:
            break
    if amiss and amiss[-1].amiss is not None:  # in the whole first chunk, so nothing was ingested yet
        raise UsageError(f"{make.source}: {amiss[0].amiss}")
    return chain(amiss, drafts)


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


def _made(make: DraftMaker, source: ReadsTexts, texts: Iterator[Text]) -> Iterator[list[Draft]]:
    """Make chunks of the rows that are not as in the run before."""
    for chunk in _chunks(make(source.row_of(*text)) for text in texts):
        if all(draft.amiss is not None for draft in chunk):  # perhaps an error of the job
            raise Unlike
        yield chunk


def _numbered(chunk: list[Draft] | KnownChunk, contents: Seen, *, seals: bool) -> Chunk | KnownChunk:
    """Number the ids made from the content, where the content is not the first of its kind.

    If it `seals`, the chunk gets the hash of its texts, unless its items are not made from them alone.
    """
    if isinstance(chunk, KnownChunk):
        return chunk
    unnumbered = [draft for draft in chunk if draft.by_content]
    if unnumbered:
        times = contents.count([draft.item_id for draft in unnumbered], 0)
        for draft, (_, seen) in zip(unnumbered, times, strict=True):
            if seen > 1:
                draft.item_id += f"-{seen}"
    numbered = Chunk(chunk)
    texts = [draft.text for draft in chunk if draft.text is not None and draft.unreadable is None] if seals else []
    if len(texts) == len(chunk) and not unnumbered:
        numbered.texts = hash_of(texts)
    for draft in chunk:
        draft.text = None
    return numbered


def _digested(chunks: Iterable[Chunk], digest: hashlib._Hash) -> Iterator[Chunk]:
    for chunk in chunks:
        digest.update("".join(f"{item.item_id}\0{item.hash}\n" for item in chunk).encode())
        yield chunk
