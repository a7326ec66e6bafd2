"""reparse: when the job's `parse` has changed, make the outputs again from the answers that are already paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import RequestFailed
from orchestrator.engine.parse import parsed
from orchestrator.store.answers import Reparsed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.parse import Parse
    from orchestrator.store import Store


async def reparse(store: Store, job_id: int, parse: Parse, fingerprint: str) -> None:
    """Bring all outputs of a job to this `parse`. An answer it refuses is discarded with the reason, not asked again.

    Killed half-way, it starts over: the answers themselves are never touched.
    """
    if await store.runs.parse_of(job_id) == fingerprint:
        return
    async for page in store.answers.pages(job_id):
        await store.answers.reparse(await to_thread.run_sync(parse_page, parse, page))
    await store.runs.parsed_with(job_id, fingerprint)


def parse_page(parse: Parse, page: Sequence[tuple[int, str]]) -> list[Reparsed]:
    """The outputs of these answers, each with its item's key. Runs the job's code: for a worker thread."""
    return [_parse_one(parse, key, answer) for key, answer in page]


def _parse_one(parse: Parse, key: int, answer: str) -> Reparsed:
    if parse is None:
        return Reparsed(key, output=answer, answer=None, refused=None)
    try:
        return Reparsed(key, output=parsed(parse, exact_json.loads(answer)), answer=answer, refused=None)
    except RequestFailed as failure:
        return Reparsed(key, output=None, answer=answer, refused=failure.message)
