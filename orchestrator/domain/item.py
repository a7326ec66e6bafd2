"""An input row and the item made from it: row -> item -> lease -> settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.domain.attempt import Completed
    from orchestrator.domain.errors import FailureKind

_OURS = frozenset({"output", "error", "attempts"})  # columns of an output that are not the input's


class ItemState(StrEnum):
    """The state of an item in a run. An `available` item with a future `available_at` is shown as "later"."""

    AVAILABLE = "available"
    LEASED = "leased"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


def columns_to_keep(keep: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of the input to keep beside the answers, each once. Raises `UsageError` if that cannot be."""
    if isinstance(keep, str):
        raise UsageError(f"keep={keep!r} is one text: give a list of columns")
    columns = tuple(dict.fromkeys(keep))
    if taken := _OURS.intersection(columns):
        raise UsageError(f"the column {min(taken)!r} cannot be kept, as the answers use that name: rename it")
    return columns


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One row of a run. `kept`: the input columns that the job keeps.

    `output`: of a completed item. `error`: of a discarded one, with `kind`, `status` and `message`.
    """

    id: str
    state: ItemState
    kept: Mapping[str, object]
    attempts: int
    output: object = None
    error: Mapping[str, object] | None = None

    def record(self) -> dict[str, object]:
        """Return a settled row as sinks get it: with `output`, or with `error` and `attempts` if it is discarded."""
        if self.state is ItemState.COMPLETED:
            return {"id": self.id, **self.kept, "output": self.output}
        return {"id": self.id, **self.kept, "error": self.error, "attempts": self.attempts}


@dataclass(frozen=True, slots=True)
class File:
    """A file used as a request body (image, audio); the ledger stores its path and SHA-256, never its content."""

    path: str
    sha256: str
    content_type: str

    def as_json(self) -> dict[str, str]:
        """Return its form in a stored request; `wires` recognise a file by the key `$file`."""
        return {"$file": self.path, "sha256": self.sha256, "content_type": self.content_type}


@dataclass(slots=True)  # not frozen: one is made for each row, and a frozen one takes three times as long
class Row:
    """One row as read from its source. Nothing changes it.

    `id` is the value of the id column as text, or None if the source has no id column (the item's id is then derived
    from its content); `given_id` is the original value if it is not text, for the output. `unreadable` says why the row
    could not be read; `columns` then holds what is known. `idless`: it is unreadable because its id is missing or
    unusable; if that holds for every row, a setting is wrong. `from_path`: columns taken from folder names, which are
    not part of the content that an id is derived from. `float32`: columns of 32-bit floats, which are stored in their
    shortest form; requests and ids keep using their 64-bit form, for compatibility. `text`: the bytes from which alone
    the row was made, if its source can compare those with earlier ones without parsing them (`ReadsTexts`).
    """

    columns: Mapping[str, object]
    id: str | None = None
    unreadable: str | None = None
    idless: bool = False
    given_id: object = None
    from_path: frozenset[str] = frozenset()
    float32: frozenset[str] = frozenset()
    text: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A claim on a range of a run's items. `token` is the fencing token: a later claim has a higher one.

    All items of a claim share one object, so that it is a fast dictionary key.
    """

    chunk: int
    token: int


@dataclass(slots=True, eq=False)
class Item:
    """One item that this process has leased.

    `key` is its number in the ledger, `request` its body as JSON, `attempt` the number of the next attempt, counted
    from 1. `failures` says why the earlier attempts failed, without those that a manual retry has forgiven. The item is
    not asked before `ready_at`, on the monotonic clock. `twin` is the key of the run's first item with the same
    request, if that is a different item; `given` is the twin's outcome, if it is already known. `forgiven`: the item
    was discarded, and it stays so in the ledger until it is settled again.
    """

    key: int
    id: str
    request: bytes
    attempt: int
    lease: Lease
    failures: list[FailureKind] = field(default_factory=list)
    ready_at: float = 0.0
    twin: int | None = None
    given: Completed | None = None
    forgiven: bool = False

    @property
    def same(self) -> int:
        """Identifies its request within the run: items with the same number share one request."""
        return self.twin or self.key
