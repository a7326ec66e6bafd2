"""What the server asks of whatever it serves: three steps, of which only the middle one has the model's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.worker.handler.calls import Calls
    from orchestrator.worker.model import Parameters


class Stepwise(Protocol):
    """Requests in, entries out. Each step is done by one thread at a time, the steps of different requests at once."""

    @property
    def budget(self) -> int | None:
        """Padded tokens in one call of the model, where that is our affair."""
        ...

    @property
    def info(self) -> Mapping[str, object]:
        """What there is to say of the model."""
        ...

    def prepare(self, requests: Sequence[object], shared: Parameters, *, tune: bool = False) -> Any:  # noqa: ANN401
        """Make requests ready, beside the model; what is given back goes to the next step."""
        ...

    def compute(self, work: Any) -> None:  # noqa: ANN401 - what `prepare` made
        """Call the model, in its own thread."""
        ...

    def entries(self, work: Any) -> list[bytes]:  # noqa: ANN401 - what `prepare` made
        """Write down the answers, beside the model: one JSON entry per request, in order."""
        ...


class HandlerSteps:
    """A handler does everything in one: its code is not made for two threads."""

    budget = None

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    @property
    def info(self) -> Mapping[str, object]:
        """What there is to say of the handler."""
        return self.calls.info

    def prepare(
        self,
        requests: Sequence[object],
        shared: Parameters,
        *,
        tune: bool = False,  # noqa: ARG002 - it says itself how much it takes
    ) -> list[Any]:
        """Nothing yet."""
        return [requests, shared]

    def compute(self, work: list[Any]) -> None:
        """All there is to do."""
        work[:] = self.calls.answer(*work)

    def entries(self, work: list[Any]) -> list[bytes]:
        """They are there."""
        return work
