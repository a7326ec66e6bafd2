"""One input row and its life: row -> item -> lease -> settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.attempt import Completed
    from orchestrator.domain.errors import FailureKind


class ItemState(StrEnum):
    """Where an item of a run stands. `available` with a future `available_at` is "later"."""

    AVAILABLE = "available"
    LEASED = "leased"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class File:
    """A file used as a request body (image, audio); kept in the ledger by path and SHA-256, never by content."""

    path: str
    sha256: str
    content_type: str

    def as_json(self) -> dict[str, str]:
        """How it stands in a stored request; `wires` know a file by the key `$file`."""
        return {"$file": self.path, "sha256": self.sha256, "content_type": self.content_type}


@dataclass(frozen=True, slots=True)
class Row:
    """One row as its source gives it.

    `id` is the value of the id column as text, or None where the source has no id column (the item's id is then made
    from its content); `given_id` is that value where it is not text, for the output. `unreadable` says why the row
    could not be read; its `columns` then hold what is known. `idless`: it is unreadable because its id is missing or
    of no use; where every row's is, that is a wrong setting. `from_path`: columns that the names of folders give, which
    are no part of the content that an id is made from. `float32`: columns of 32-bit floats, which are kept in the
    shortest form; requests and ids have them as 64 bits do, as they always had.
    """

    columns: Mapping[str, object]
    id: str | None = None
    unreadable: str | None = None
    idless: bool = False
    given_id: object = None
    from_path: frozenset[str] = frozenset()
    float32: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A claim on a range of a run's items. `token` is the fencing token: a later claim has a higher one.

    One object a claim, which all its items share, so that it is a quick key.
    """

    chunk: int
    token: int


@dataclass(slots=True, eq=False)
class Item:
    """One item in this process's hands.

    `key` is its number in the ledger, `request` its body as JSON, `attempt` the number of the coming
    attempt, counted from 1, `failures` why the earlier ones failed; those that a retry by hand has pardoned are not
    among them. It is asked no sooner than `ready_at`, on the monotonic clock. `twin` is the key of the run's first item
    with the same request, where that is another one; `given` what it got, where it is known already. `forgiven`: it was
    discarded, and that stands until it is settled anew.
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
        """Names its request within the run: items of one number share it."""
        return self.twin or self.key
