"""Ingest: rows -> items of a run, as a stream; and the plan, which is the same without writing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import orjson
from anyio import from_thread, to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.events import SourceRead
from orchestrator.domain.item import File
from orchestrator.domain.json_values import shortest
from orchestrator.domain.placeholders import names_of
from orchestrator.domain.request import MissingColumn, Renderer, columns_in, drawn_by_chance
from orchestrator.domain.run import Plan
from orchestrator.ports import SelectsColumns, WritesFiles
from orchestrator.store import Seen
from orchestrator.store.snapshots import NewItem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Generator, Iterable, Iterator, Mapping, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.domain.run import Run
    from orchestrator.job import Job
    from orchestrator.ports import EventListener, Sink, Source
    from orchestrator.store import Store

CHUNK_ROWS = 500  # rows that are leased together
CHUNK_BYTES = 4_000_000  # bytes of requests: huge rows make small chunks, so that a lease fits in memory
GROUP_CHUNKS = 8  # chunks in one transaction
Look = Callable[["list[NewItem]"], Awaitable[None]]

# we serialize dataclasses ourselves: a `File` is one, and is not represented by its fields
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
_SORTED = _JSON | orjson.OPT_SORT_KEYS  # for hashes: the order of keys makes no difference

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
            make = _DraftMaker(self.job, self.identity)
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

    def _named(self, chunks: Iterable[list[_Draft]], ids: Seen, digest: hashlib._Hash) -> Iterator[list[NewItem]]:
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


@dataclass(slots=True)
class _Draft:
    """An item before its final id is known."""

    given_id: str | None
    content_id: str | None  # only if no id is given
    identity: str
    request: str | None
    kept: str | None
    unreadable: str | None
    shares: str | None = None  # as in NewItem
    amiss: str | None = None  # an error of the job rather than of the row, if every row has it


_NOTHING_READABLE = "no row can be read: check that it is the right file, and the source for its format"

Requesting = TypeVar("Requesting", _Draft, NewItem)


def _items(make: _DraftMaker, rows: Iterable[Row]) -> Iterator[_Draft]:
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


class _DraftMaker:
    """Makes an item from a row, whatever the row contains."""

    def __init__(self, job: Job, identity: Mapping[str, object]) -> None:
        self.source = job.source.describe()
        self._render = Renderer(job.request)
        self._shape = hashlib.blake2b(exact_json.dumps(identity, _as_stored, _SORTED), digest_size=16)
        self._dedupe = job.policy.dedupe and not drawn_by_chance(identity)
        self._keep = [name for name in job.kept if name != "id"]
        self._keeps_id = "id" in job.kept
        self._never_seen = set(self._keep)
        self._columns: Collection[str] = ()  # columns of the first readable row

    def never_kept(self, rest: Iterable[Row]) -> str | None:
        """Return a column in `keep` that no row has, including the `rest` beyond the limit; None if there is none."""
        for row in rest if self._never_seen else ():
            self._see(row)
            if not self._never_seen:
                break
        missing = next((name for name in self._keep if name in self._never_seen), None)
        if missing is None or not self._columns:
            return None
        return f"column {missing!r} of `keep` is not among the rows' columns ({', '.join(map(str, self._columns))})"

    def _see(self, row: Row) -> None:
        if row.unreadable is None:
            self._columns = self._columns or row.columns.keys()
            self._never_seen.difference_update(row.columns)

    def __call__(self, row: Row) -> _Draft:
        request, kept, why = None, None, row.unreadable
        amiss = None
        if why is not None:
            amiss = f"{why}; correct `id` in the job file" if row.idless else f"{why}; {_NOTHING_READABLE}"
        if self._never_seen:
            self._see(row)
        hashed, shares = b"", None
        try:
            kept = self._kept(row)
            if why is None:
                rendered = self._render(row.columns)
                request, portable, hashed = _body(rendered)
                if self._dedupe and not drawn_by_chance(rendered):
                    shares = hashlib.blake2b(portable, digest_size=16).hexdigest()
        except MissingColumn as error:
            why = str(error)
            amiss = f"{why}; correct `request` in the job file"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the job's own function, the row's own values; the row bears it
            why = f"no request could be made: {type(error).__name__}: {error}"
        content = _content(row) if row.id is None or request is None else b""
        digest = self._shape.copy()
        digest.update(content if request is None else hashed)
        content_id = hashlib.blake2b(content, digest_size=8).hexdigest() if row.id is None else None
        text = None if request is None else request.decode()
        return _Draft(row.id, content_id, digest.hexdigest(), text, kept, why, shares, amiss)

    def _kept(self, row: Row) -> str | None:
        """Return the columns to keep, as JSON, with the output's `id` if it differs from the item's."""
        kept = {name: row.columns.get(name) for name in self._keep}
        kept |= {name: shortest(kept[name]) for name in row.float32.intersection(kept)}
        if self._keeps_id and row.columns.get("id", row.id) != row.id:
            kept["id"] = row.columns["id"]
        elif row.given_id is not None:
            kept["id"] = row.given_id
        return exact_json.dumps(kept, _plain, _JSON).decode() if kept else None


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


def _name(chunk: list[_Draft], seen: Seen, position: int, job: Job) -> list[NewItem]:
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


def _body(request: object) -> tuple[bytes, bytes, bytes]:
    """Return the request as stored and sent; with files by content instead of path; and the latter as hashed."""
    stored = portable = exact_json.dumps(request, _as_stored, _JSON)
    if b'"$file"' in stored:
        portable = exact_json.dumps(request, _by_content, _JSON)
    return stored, portable, exact_json.dumps(request, _by_content, _SORTED) if b"{" in portable else portable


def _content(row: Row) -> bytes:
    """Return the row's own columns as bytes, for an id or a hash, even if JSON cannot represent them."""
    columns = {name: value for name, value in row.columns.items() if name not in row.from_path}
    try:
        return exact_json.dumps(columns, _plain, _SORTED)
    except TypeError:
        return repr(sorted(columns.items(), key=str)).encode(errors="backslashreplace")


def _as_stored(value: object) -> object:
    return value.as_json() if isinstance(value, File) else _as_object(value)


def _by_content(value: object) -> object:
    if isinstance(value, File):
        return {"$file": value.sha256, "content_type": value.content_type}
    return _as_object(value)


def _plain(value: object) -> object:
    """Return a readable form of a value that JSON does not know."""
    if isinstance(value, File):
        return value.path
    try:
        return _as_object(value)
    except TypeError:
        return str(value)


def _as_object(value: object) -> object:
    """Return a dataclass of the job as a dictionary."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    raise TypeError(f"a request cannot contain a {type(value).__name__}")
