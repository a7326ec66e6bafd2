"""Decide which rows are the same as in the run before, by the texts of whole chunks.

A chunk also keeps the hash of its rows' texts (`chunk.texts`; `ReadsTexts`: JSON Lines with an id), and the run a
hash of all else that shapes its items (`run.made_as`). The next run takes over each chunk with the same texts at
the same positions: members are copied in SQL, nothing is parsed. `made_as` and `compared`
decide this. If a row that is not taken over stands elsewhere in the run before, or too
many do not, `Unlike` is raised, and every row is read. Which members share an answer is then found again for the
hashes concerned (`store/known_chunks.py`).
"""

from __future__ import annotations

import hashlib
import json
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.engine.asking.request_json import stored_request
from orchestrator.ports import ReadsTexts
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from orchestrator.engine.run.drafts import Draft
    from orchestrator.job import Job
    from orchestrator.store.known_chunks import Earlier, KnownChunk

Text: TypeAlias = tuple[int, bytes]
_LONGEST = 64 << 20  # bytes of texts that are compared at once


def made_as(job: Job, identity: Mapping[str, object]) -> str | None:
    """Return a hash of all that shapes the items of a job besides the texts of its source; None if that is not known.

    A function may depend on anything, and an incremental job leaves rows out.
    """
    source = job.source
    if callable(job.request) or job.incremental or not isinstance(source, ReadsTexts):
        return None
    shape = hashlib.sha256(json.dumps([__version__, source.reads_as, job.kept, job.policy.dedupe]).encode())
    try:
        shape.update(stored_request(job.request) + b"\n" + stored_request(identity))
    except TypeError:  # nor can a request be made
        return None
    return shape.hexdigest()


def hash_of(texts: Iterable[bytes]) -> bytes:
    """Return the hash of the texts of a chunk, which end with a line end each."""
    return hashlib.sha256(b"".join(texts)).digest()[:16]


def compared(
    before: Earlier, texts: Iterator[Text], chunk_rows: int, made: Callable[[Iterator[Text]], Iterator[list[Draft]]]
) -> Iterator[list[Draft] | KnownChunk]:
    """Yield chunks of the run before whose texts are the same, and what is made of all other texts.

    The last chunk is made again if there is room in it, so that appended rows do not add ever more small chunks.
    """
    pages = _pages(before.chunks, texts, chunk_rows)
    for known, alike in groupby(pages, key=lambda page: page[0] is not None):
        if known:
            yield from (page[0] for page in alike if page[0] is not None)
        else:
            yield from made(chain.from_iterable(page[1] for page in alike))


def _pages(
    chunks: Sequence[KnownChunk], texts: Iterator[Text], chunk_rows: int
) -> Iterator[tuple[KnownChunk | None, Iterable[Text]]]:
    last = chunks[-1] if chunks else None
    for known in chunks:
        page, held = [], 0
        for text in islice(texts, known.rows):
            page.append(text)
            held += len(text[1])
            if held > _LONGEST:
                break
        whole = len(page) == known.rows and (known is not last or known.rows == chunk_rows)
        same = whole and known.texts is not None and known.texts == hash_of(text for _, text in page)
        yield known if same else None, page
    yield None, texts
