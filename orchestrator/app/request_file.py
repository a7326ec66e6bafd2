"""Write what a run would ask as a file that batch services take."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from anyio import to_thread
from yarl import URL

from orchestrator import exact_json
from orchestrator.domain.batch_dialects import request_line
from orchestrator.domain.batch_lines import ROUTES
from orchestrator.domain.errors import RequestFailed, UsageError
from orchestrator.engine.run.chained import chained
from orchestrator.engine.run.drafts import DraftMaker
from orchestrator.engine.run.files import check_unread
from orchestrator.ports import ReadsFiles
from orchestrator.sinks.aside import Aside, writing
from orchestrator.sinks.delivery import json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.domain.batch_dialects import Dialect
    from orchestrator.domain.batch_lines import Route
    from orchestrator.domain.item import Row
    from orchestrator.engine.run.drafts import Draft
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.job import Job
    from orchestrator.store import Store
    from orchestrator.wires import Wire

_PAGE = 1000  # rows


@dataclass(frozen=True, slots=True)
class RequestFile:
    """What was written: the number of requests, and why rows were left out, in their order."""

    requests: int
    left_out: Sequence[str]


async def write_requests(
    asked: RunRequest, store: Store, path: Path, dialect: Dialect, *, overwrite: bool = False
) -> RequestFile:
    """Write one line for each row of the job's source, with the very body that its wire would send. Calls nothing.

    The first endpoint's wire has to be one of OpenAI's. Rows that cannot be asked are left out. Nothing appears at
    `path` unless all is written. Raises `UsageError` if the file exists, or if the job speaks another format.
    """
    job = await chained(asked.job, store)
    lines = _Lines(*wire_of(job), dialect)
    await to_thread.run_sync(partial(_check_place, job, path, overwrite=overwrite))
    count = 0
    with ExitStack() as stack:
        drafts = await to_thread.run_sync(drafts_of, job, asked.limit, stack)
        with writing(path):
            file = stack.enter_context(Aside(path))
        while page := await to_thread.run_sync(list, islice(drafts, _PAGE)):
            written = [line for draft in page if (line := await lines.of(draft)) is not None]
            with writing(path):
                await to_thread.run_sync(file.write, json_lines(written))
            count += len(written)
        with writing(path):
            await to_thread.run_sync(file.sync)
            await to_thread.run_sync(file.put_in_place)
    return RequestFile(count, lines.left_out)


@dataclass(slots=True)
class _Lines:
    """Makes the lines. An id that several rows share is that of the first; without ids, equal rows are numbered."""

    wire: Wire
    route: Route
    dialect: Dialect
    left_out: list[str] = field(default_factory=list)
    _seen: Counter[str] = field(default_factory=Counter)

    async def of(self, draft: Draft) -> dict[str, object] | None:
        """Return the line of a row; None, and note why, if it has none."""
        custom_id = draft.item_id
        self._seen[custom_id] += 1
        line = await self._line(draft, custom_id, self._seen[custom_id])
        if isinstance(line, str):
            self.left_out.append(f"item {custom_id} {line}")
            return None
        return line

    async def _line(self, draft: Draft, custom_id: str, times: int) -> dict[str, object] | str:
        """Return the line, or why there is none. `times`: how many rows have had the id so far."""
        if draft.request is None:
            return str(draft.unreadable)
        if times > 1 and not draft.by_content:
            return "has the id of an earlier row"
        name = custom_id if times == 1 else f"{custom_id}-{times}"
        try:
            body = await self.wire.pack([draft.request.encode()])
            return request_line(self.dialect, name, self.route, exact_json.loads(body.content))
        except (RequestFailed, ValueError) as error:
            return str(error)


def refuse_rollout(job: Job) -> None:
    """Raise `UsageError` if the job's rows are not requests."""
    if job.rollout is not None:
        raise UsageError(f"job {job.name!r} has a rollout, whose requests are known only while it runs")


def wire_of(job: Job) -> tuple[Wire, Route]:
    """Return the wire of the job's first endpoint and its route. Raises `UsageError` if it is none of OpenAI's."""
    refuse_rollout(job)
    wire: Wire | None = getattr(job.endpoints[0].endpoint, "wire", None)
    path = None if wire is None else wire.url(URL("http://localhost")).path
    for route in ROUTES:
        if wire is not None and path == route:
            return wire, route
    raise UsageError(
        f"job {job.name!r} does not speak one of OpenAI's formats ({', '.join(ROUTES)}), which batch files have: give "
        "its endpoint such a wire, for example OpenAIChatWire"
    )


def _check_place(job: Job, path: Path, *, overwrite: bool) -> None:
    if isinstance(job.source, ReadsFiles):
        check_unread(job.source.describe(), job.source.reads([path.absolute()]))
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another path, or replace it with `--overwrite`")


def drafts_of(job: Job, limit: int | None, stack: ExitStack) -> Iterator[Draft]:
    """Open the job's source until the stack is closed, and return what its rows become. Blocking."""
    rows: Iterator[Row] = stack.enter_context(job.source.rows())
    return map(DraftMaker(job, {}), islice(rows, limit))
