"""Which wire carries how many items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.errors import UsageError
from orchestrator.wires.huggingface import HuggingFaceWire

if TYPE_CHECKING:
    from orchestrator.wires.wire import Wire


def for_batches(wire: Wire, batch_size: int | Literal["auto"] | None) -> Wire:
    """The wire that carries so many items in one request. `UsageError` where it cannot; "auto" is then one."""
    if batch_size in {None, 1} or (batch_size == "auto" and not wire.takes_lists):
        return wire
    if not wire.takes_lists:
        raise UsageError(
            f"a request of the wire {wire.identity['wire']} holds one item, so policy.batch_size cannot be {batch_size}"
        )
    return replace(wire, lists=True) if isinstance(wire, HuggingFaceWire) else wire
