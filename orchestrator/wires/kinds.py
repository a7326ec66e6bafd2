"""The wires there are, by name."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.domain.errors import UsageError
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.openai import OpenAIChatWire

if TYPE_CHECKING:
    from collections.abc import Mapping

Wire: TypeAlias = HuggingFaceWire | OpenAIChatWire

WIRES: Mapping[str, type[Wire]] = {"huggingface": HuggingFaceWire, "openai": OpenAIChatWire}


def for_batches(wire: Wire, batch_size: int | None) -> Wire:
    """The wire that carries so many items in one request. `UsageError` where it cannot."""
    if (batch_size or 1) == 1:
        return wire
    if isinstance(wire, HuggingFaceWire):
        return replace(wire, lists=True)
    raise UsageError(f"a chat request holds one item, so policy.batch_size cannot be {batch_size}")


def identity_of(wire: Wire) -> Mapping[str, object]:
    """Everything about a wire that shapes an answer; `wire_model` is what it calls the model."""
    (name,) = (name for name, kind in WIRES.items() if type(wire) is kind)
    return {"wire": name} | {"wire_model" if key == "model" else key: value for key, value in asdict(wire).items()}
