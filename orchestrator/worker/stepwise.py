"""What the server needs of whatever it serves: three steps, of which only the middle one uses the model's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.worker.handler.calls import Calls
    from orchestrator.worker.model import Parameters


class Stepwise(Protocol):
    """Requests in, entries out. One thread at a time runs each step; steps of different requests overlap."""

    @property
    def budget(self) -> int | None:
        """Padded tokens in one call of the model, if we decide that."""
        ...

    @property
    def info(self) -> Mapping[str, object]:
        """Facts about the model."""
        ...

    def prepare(self, requests: Sequence[object], shared: Parameters, *, tune: bool = False) -> Any:
        """Prepare requests while the model computes; the result goes to the next step."""
        ...

    def compute(self, work: Any) -> None:
        """Call the model, in its own thread."""
        ...

    def entries(self, work: Any) -> list[bytes]:
        """Encode the answers while the model computes: one JSON entry per request, in order."""
        ...


class HandlerSteps:
    """A handler does everything in one step, because its code is not made for two threads."""

    budget = None

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @property
    def info(self) -> Mapping[str, object]:
        """Facts about the handler."""
        return self.calls.info

    def prepare(
        self,
        requests: Sequence[object],
        shared: Parameters,
        *,
        tune: bool = False,
    ) -> list[Any]:
        """Nothing yet."""
        return [requests, shared]

    def compute(self, work: list[Any]) -> None:
        """Do everything."""
        work[:] = self.calls.answer(*work)

    def entries(self, work: list[Any]) -> list[bytes]:
        """They are there."""
        return work
