"""Files and batches of the HTTP server as values. A batch's status follows from its row and its run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite, nan
from typing import TYPE_CHECKING

from orchestrator.domain.batch_lines import ROUTES
from orchestrator.domain.errors import InvalidBatch
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.run import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.batch_lines import BatchError
    from orchestrator.domain.run import Run, Tokens

BATCH_INPUT, BATCH_OUTPUT = "batch", "batch_output"  # purposes of files
KEPT_FOR = 30 * 86400.0  # seconds for which an input file is kept by default
SAME_WITHIN = 60.0  # seconds in which an equal upload or batch is the client's retry
_WINDOW = re.compile(r"([1-9]\d{0,5})([mhd])")
_JOB = re.compile(r"[\w-]{1,64}")  # without dots, so that no two owners' jobs have one name
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. Its content is named by its hash. `expires_at`: None if it is kept until it is deleted."""

    id: str
    owner: str
    sha256: str
    bytes: int
    filename: str
    purpose: str
    created_at: float
    expires_at: float | None


class UploadState(StrEnum):
    """The state of a file that arrives in parts."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrives in parts. `bytes`: of all parts together, as announced. `file_id`: once it is complete."""

    id: str
    owner: str
    state: UploadState
    bytes: int
    filename: str
    purpose: str
    mime_type: str
    expires_after: float | None
    created_at: float
    expires_at: float
    file_id: str | None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A part of an upload."""

    id: str
    upload_id: str
    sha256: str
    bytes: int
    created_at: float


class BatchStatus(StrEnum):
    """The status of a batch, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a batch's metadata says about its run. `deadline`: in the words of a policy. `budget`: dollars."""

    priority: int = 0
    deadline: str | None = None
    budget: float | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A request for a batch."""

    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str = "24h"
    metadata: Mapping[str, str] | None = None
    output_expires_after: float | None = None


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """Tokens of a batch's answers, as their servers report them."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: BatchUsage) -> BatchUsage:
        return BatchUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as stored in the ledger. Moments are seconds since 1970 UTC.

    `input_sha256`: None if there was no such file. `run_id`: once it is validated. `ended_as`: its last status.
    `total`, `completed`, `failed`: the number of requests, and what became of them, once it has ended.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    input_sha256: str | None
    completion_window: str
    metadata: Mapping[str, str] | None
    output_expires_after: float | None
    created_at: float
    expires_at: float
    model: str | None = None
    run_id: int | None = None
    in_progress_at: float | None = None
    cancelling_at: float | None = None
    finalizing_at: float | None = None
    ended_at: float | None = None
    ended_as: BatchStatus | None = None
    errors: Sequence[BatchError] = field(default=())
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    usage: BatchUsage | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def job(self) -> str:
        """The name of its run's job: its own, or the one in its metadata, which is its owner's."""
        named = (self.metadata or {}).get("job")
        return self.id if named is None else f"batch.{self.owner}.{named}"


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch with its run as they are now. `run`: None before it is submitted, and once it is deleted."""

    batch: Batch
    run: Run | None
    completed: int
    failed: int
    usage: BatchUsage | None

    @property
    def status(self) -> BatchStatus:
        """What a poll shows."""
        return status_of(self.batch, self.run)

    @property
    def total(self) -> int:
        """The number of its requests; 0 until it is validated."""
        return 0 if self.batch.in_progress_at is None else self.batch.total or 0


def status_of(batch: Batch, run: Run | None) -> BatchStatus:
    """Return the status of a batch. `run` is the one with its key, if there is one."""
    if batch.ended_as is not None:
        return batch.ended_as
    if batch.cancelling_at is not None:
        return BatchStatus.CANCELLING
    if batch.run_id is None:
        return BatchStatus.VALIDATING
    return BatchStatus.FINALIZING if run is None or is_done(run) else BatchStatus.IN_PROGRESS


def is_done(run: Run) -> bool:
    """Whether nothing more will be settled in a run: it was delivered, or it ended otherwise and is not queued."""
    if run.state is RunState.FINISHED:
        return run.delivered_at is not None
    return run.state not in {RunState.INGESTING, RunState.OPEN} and run.holder is None and run.due_at is None


def end_of(batch: Batch, run: Run | None, now: float) -> BatchStatus:
    """Return how a batch ends whose run is done.

    A run that has failed and is not in the queue ends its batch, although it could be continued by hand: nobody who
    polls would see it.
    """
    if batch.cancelling_at is not None:
        return BatchStatus.CANCELLED
    match run:
        case None:
            return BatchStatus.FAILED
        case _ if run.state is RunState.FINISHED:
            return BatchStatus.COMPLETED
        case _ if run.state is RunState.CANCELLED:
            return BatchStatus.EXPIRED if now >= batch.expires_at else BatchStatus.CANCELLED
        case _:
            return BatchStatus.FAILED


def live_usage(tokens: Tokens) -> BatchUsage | None:
    """Return the usage of a batch that has not ended: details are added up at its end."""
    if tokens.tokens_in is None and tokens.tokens_out is None:
        return None
    return BatchUsage(input_tokens=tokens.tokens_in or 0, output_tokens=tokens.tokens_out or 0)


def window_seconds(window: str) -> float:
    """Return the seconds of a completion window such as 24h. Raises `ValueError` for anything else."""
    parts = _WINDOW.fullmatch(window)
    if parts is None:
        raise ValueError(f"{window!r} is not a number of minutes, hours or days such as 30m, 24h or 7d")
    return int(parts[1]) * _SECONDS[parts[2]]


def check_new(new: NewBatch) -> None:
    """Raise `InvalidBatch`, in OpenAI's words, if the endpoint, the window or the metadata cannot be used."""
    if new.endpoint not in ROUTES:
        supported = ", ".join(f"'{route}'" for route in ROUTES)
        raise InvalidBatch(f"Invalid value: '{new.endpoint}'. Supported values are: {supported}.", "endpoint")
    try:
        window_seconds(new.completion_window)
    except ValueError as error:
        raise InvalidBatch(f"Invalid completion_window: {error}", "completion_window") from error
    try:
        orders_of(new.metadata)
    except ValueError as error:
        raise InvalidBatch(str(error), "metadata") from error


def orders_of(metadata: Mapping[str, str] | None) -> Orders:
    """Return what the metadata says about the run. Raises a one-line `ValueError` if it cannot be meant."""
    found = metadata or {}
    priority, deadline, budget, job = (found.get(name) for name in ("priority", "deadline", "budget", "job"))
    orders = Orders(_priority(priority), deadline, _budget(budget), job)
    if deadline is not None:
        try:
            deadline_at(deadline, 0.0)
        except ValueError as error:
            raise ValueError(f"metadata: deadline: {error}") from error
    if job is not None and _JOB.fullmatch(job) is None:
        raise ValueError("metadata: job is a name of 1 to 64 letters, digits, - and _")
    return orders


def _priority(given: str | None) -> int:
    try:
        priority = 0 if given is None else int(given)
    except ValueError as error:
        raise ValueError(f"metadata: priority {given!r} is not a whole number such as 5") from error
    if not -(2**31) < priority < 2**31:
        raise ValueError(f"metadata: the priority {given} is out of range")
    return priority


def _budget(given: str | None) -> float | None:
    if given is None:
        return None
    try:
        budget = float(given)
    except ValueError:
        budget = nan
    if not (isfinite(budget) and budget >= 0):
        raise ValueError(f"metadata: budget {given!r} is not a number of dollars such as 2.50")
    return budget
