"""What a snapshot reads, for tests of reading alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.store.row_classes import Chunk

if TYPE_CHECKING:
    from orchestrator.engine.run.snapshot import Snapshot
    from orchestrator.store.row_classes import NewItem


def chunks_of(snapshot: Snapshot) -> list[Chunk]:
    """Return the chunks made of all rows."""
    return [chunk for group in snapshot.groups() for chunk in group if isinstance(chunk, Chunk)]


def items_in(snapshot: Snapshot) -> list[NewItem]:
    """Return the items made of all rows."""
    return [item for chunk in chunks_of(snapshot) for item in chunk]
