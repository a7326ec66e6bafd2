"""Snapshot: the rows of a source as chunks of items, as a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, starmap
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import from_thread

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.measured_pace import Workload
from orchestrator.domain.request import columns_in
from orchestrator.engine.run.drafts import Draft, DraftMaker
from orchestrator.engine.run.known_rows import Text, compared, hash_of, made_as
from orchestrator.ports import ReadsTexts, SelectsColumns
from orchestrator.store import Seen
from orchestrator.store.known_chunks import KnownChunk, Unlike
from orchestrator.store.row_classes import Chunk, NewItem

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.job import Job
    from orchestrator.ports import Source
    from orchestrator.store.known_chunks import Earlier

CHUNK_ROWS = 500  # rows that are leased together
CHUNK_BYTES = 4_000_000  # bytes of requests: huge rows make small chunks, so that a lease fits in memory
GROUP_CHUNKS = 8  # chunks in one transaction

Group = list[Chunk | KnownChunk]
Delivered = Callable[[list[NewItem]], Coroutine[Any, Any, frozenset[int]]]


T = TypeVar("T")


class ReadingHalted(Exception):
    """Reading has ended because the run is stopped."""


@dataclass(slots=True)
class Snapshot:
    """What is read from a source for one run. `sha256`, set after the last group, covers ids and requests in order.

    `input_sha256`: of the source just before it is read, if it has one. `delivered` says which rows earlier runs have
    delivered: they are left out, and counted in `left_out`. `never_kept`, set with `sha256`, names a column in `keep`
    that no row has. `reuse`: other jobs whose answers are taken over. `load`: what is to be asked, set by a plan.
    `halted`: reading ends after the row in hand, because a source may take long for a chunk.
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
    load: Workload = field(default_factory=Workload, init=False)
    halted: bool = field(default=False, init=False)

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
                chunks = _digested(made_anew(chunks), digest)
            if self.delivered is not None:
                chunks = map(Chunk, _chunks(self._new(made_anew(chunks), self.delivered)))
            while group := list(islice(chunks, GROUP_CHUNKS)):
                yield group
            self.never_kept = make.never_kept(rest)
            if self.never_kept is not None and before is not None:
                raise Unlike  # the rows taken over may have it
        self.sha256 = digest.hexdigest()

    def _until_halted(self, rows: Iterator[T]) -> Iterator[T]:
        for row in rows:
            if self.halted:
                raise ReadingHalted
            yield row

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
            texts = self._until_halted(texts)
            return compared(before, islice(texts, self.limit), CHUNK_ROWS, made), starmap(source.row_of, texts)
        rows = self._until_halted(stack.enter_context(self.rows()))
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


def made_anew(chunks: Iterable[Chunk | KnownChunk]) -> Iterator[Chunk]:
    """Return the chunks that are not taken over from the run before."""
    return (chunk for chunk in chunks if isinstance(chunk, Chunk))


def _narrowed(job: Job) -> Source:
    """Return the job's source without the columns that the job does not use, if it can leave them out."""
    used = columns_in(job.request) if job.rollout is None else None
    if used is None or not isinstance(job.source, SelectsColumns):
        return job.source
    return job.source.selecting(used | set(job.kept))


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
