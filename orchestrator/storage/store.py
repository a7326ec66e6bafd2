"""What every kind of remote storage offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.location import Location


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store says of an object. `version` changes with the content: an etag, a generation, a commit.

    `version` is None if the store has nothing of the kind.
    """

    size: int | None
    version: str | None


class Storage(Protocol):
    """One kind of remote storage. Its methods block.

    They repeat requests that failed for a transient reason, and raise a `UsageError` that names the location and the
    remedy, or `StorageSilent` if a later try may succeed.
    """

    def stat(self, location: Location) -> Stat | None:
        """Return what the store says of the object; None if there is none."""
        ...

    def open(self, location: Location) -> BinaryIO:
        """Open the object for reading: seekable, unbuffered, each read is a request for that range."""
        ...

    def check_unchanged(self, location: Location, file: BinaryIO) -> None:
        """Raise `UsageError` if the object is no longer the one that was opened, as far as reading did not notice."""
        ...

    def matches(self, pattern: Location) -> Sequence[Location]:
        """Return the objects that match the pattern now, sorted."""
        ...

    def check_writable(self, location: Location) -> None:
        """Raise if no object can be written there, as far as can be seen without writing one."""
        ...

    def put(self, location: Location, file: BinaryIO) -> None:
        """Write the object from a local file. It is visible only as a whole; a failed upload changes nothing."""
        ...

    def copy(self, source: Location, target: Location) -> None:
        """Copy an object within the store."""
        ...

    def delete(self, location: Location) -> None:
        """Delete the object, if there is one."""
        ...

    def abort_unfinished(self, locations: Sequence[Location]) -> None:
        """Remove what killed uploads to exactly these locations have left unfinished, as far as that is possible."""
        ...
