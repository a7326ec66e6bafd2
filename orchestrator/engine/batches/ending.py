"""End batches: stop the runs of those that are cancelled or late, and write the files of those whose run is done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator.domain.batch import BatchStatus, BatchUsage, end_of, is_done
from orchestrator.domain.batch_lines import BatchError
from orchestrator.domain.batch_output import output_line, refused_line, unasked_line, usage_in
from orchestrator.domain.errors import UsageError
from orchestrator.domain.run import RunState
from orchestrator.engine.batches.files import opened_blob
from orchestrator.store.batches import BatchOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from orchestrator.domain.batch import Batch, BatchProgress
    from orchestrator.domain.batch_output import UnaskedBecause
    from orchestrator.domain.run import Run
    from orchestrator.store import Store
    from orchestrator.store.batches import SettledLine
    from orchestrator.store.blobs import NewBlob

    CustomIds: TypeAlias = Callable[[Path, int], Iterator[str]]

_UNASKED: Mapping[BatchStatus, UnaskedBecause] = {
    BatchStatus.EXPIRED: "expired",
    BatchStatus.CANCELLED: "cancelled",
}
_ENDED: Mapping[RunState, str] = {RunState.FAILED: "failed", RunState.STOPPED: "stopped"}


async def end_batch(progress: BatchProgress, ids: CustomIds, store: Store, now: float) -> None:
    """Do what a batch needs that is cancelled, is late, or has a run that is done; otherwise nothing.

    `ids` reads the custom_ids of a file from behind a number of lines, in case its run ended before it had read them.
    Safe to repeat after any interruption: its files and its end are recorded in one transaction.
    """
    batch, run = progress.batch, progress.run
    if batch.run_id is None and (run is None or batch.cancelling_at is None):
        return  # it is not validated
    if run is not None and not is_done(run):
        if batch.cancelling_at is not None:
            await store.runs.cancel(run.id, f"batch {batch.id} was cancelled")
        elif now >= batch.expires_at:
            await store.runs.cancel(run.id, f"batch {batch.id} expired")
        return
    await store.batches.finalize(batch)
    await _finalize(batch, run, end_of(batch, run, now), ids, store)


async def _finalize(batch: Batch, run: Run | None, status: BatchStatus, ids: CustomIds, store: Store) -> None:
    """Write the output and the error file from the ledger, page by page, and end the batch."""
    errors = [BatchError("batch_failed", _why(run))] if status is BatchStatus.FAILED else []
    if run is None:
        await store.batches.end(batch, status, BatchOutcome(errors=errors))
        return
    async with opened_blob(store) as output, opened_blob(store) as error:
        files, after = _Files(run.id, _UNASKED.get(status, "failed"), output, error), -1
        while page := await store.batches.lines(run.id, after):
            await to_thread.run_sync(files.write, page)
            after = page[-1].position
        if batch.input_sha256 is not None and (batch.total or 0) > after + 1:
            unread = partial(ids, store.files.blobs.path(batch.input_sha256), after + 1)
            with suppress(UsageError):  # a ledger that is restored from a backup lacks the file: its run says so
                await to_thread.run_sync(files.write_unread, after + 1, unread)
        await to_thread.run_sync(files.sync)
        latest = await store.batches.find(batch.id, batch.owner)
        if latest is not None and latest.run != run:
            return  # somebody has retried the run, so the files mix two states of it
        await store.batches.end(batch, status, files.outcome(errors))


def _why(run: Run | None) -> str:
    """Return why a batch failed, in the words of its run."""
    if run is None:
        return "The run of the batch has been deleted."
    ended = f"Run {run.id} {_ENDED.get(run.state, f'was {run.state}')}"
    return f"{ended}: {run.error}" if run.error else f"{ended}."


@dataclass(slots=True)
class _Files:
    """The two files of a batch while they are being written."""

    run_id: int
    unasked: UnaskedBecause  # why requests of it have no outcome
    output: NewBlob
    error: NewBlob
    completed: int = 0
    failed: int = 0
    usage: BatchUsage = field(default_factory=BatchUsage)

    def write(self, page: Sequence[SettledLine]) -> None:
        """Append the lines of some requests, in their order. Blocking."""
        output, error = [], []
        for line in page:
            if line.outcome == "completed" and line.output is not None:
                self.completed += 1
                self.usage += usage_in({"usage": None if line.usage is None else orjson.loads(line.usage)})
                output.append(output_line(self._id(line), line.id, line.output))
            else:
                self.failed += line.outcome == "discarded"
                error.append(self._error_line(line))
        self.output.write("".join(output).encode())
        self.error.write("".join(error).encode())

    def write_unread(self, position: int, ids: Callable[[], Iterator[str]]) -> None:
        """Append the lines of requests, from this position on, that the run had not read. Blocking."""
        for number, custom_id in enumerate(ids(), position):
            self.error.write(unasked_line(self._named(number), custom_id, self.unasked).encode())

    def _error_line(self, line: SettledLine) -> str:
        if line.outcome is None:
            return unasked_line(self._id(line), line.id, self.unasked)
        return refused_line(
            self._id(line), line.id, kind=str(line.kind), status=line.status, message=str(line.message), body=line.body
        )

    def _id(self, line: SettledLine) -> str:
        return self._named(line.position)

    def _named(self, position: int) -> str:
        """Return the id of a request, which is the same whenever the file is written."""
        return f"{self.run_id:08x}{position:08x}"

    def sync(self) -> None:
        """Return once both are on disk. Blocking."""
        self.output.sync()
        self.error.sync()

    def outcome(self, errors: Sequence[BatchError]) -> BatchOutcome:
        """Return what they make up. A file without a line is none."""
        output = self.output if self.output.size else None
        error = self.error if self.error.size else None
        return BatchOutcome(self.completed, self.failed, self.usage, errors, output, error)
